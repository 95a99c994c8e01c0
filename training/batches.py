"""Which rows make up a step, and their tensors.

Data order is a pure function of (seed, position): the stream of all epochs, each in its own shuffled order, of which a
step takes the next `global batch` rows. A resumed run only has to know its position.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from training.dataset import Row

if TYPE_CHECKING:
    from torch import Tensor

IGNORED: Final = -100


@dataclass(frozen=True)
class Batch:
    """The padded tensors of one forward pass. `labels` holds IGNORED where the loss does not look."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(self.input_ids.to(device), self.attention_mask.to(device), self.labels.to(device))


@functools.lru_cache(maxsize=2)  # a step touches at most two epochs unless the data is tiny
def epoch_order(rows: int, seed: int, epoch: int) -> tuple[int, ...]:
    """The shuffled row numbers of one epoch. Seeded by text, which Python keeps stable over versions and platforms."""
    order = list(range(rows))
    random.Random(f"epoch {epoch} of seed {seed}").shuffle(order)  # noqa: S311
    return tuple(order)


def step_rows(rows: int, seed: int, position: int, count: int, end: int | None) -> list[int]:
    """The row numbers at [position, position + count) of the stream, cut at `end`."""
    last = position + count if end is None else min(position + count, end)
    return [epoch_order(rows, seed, at // rows)[at % rows] for at in range(position, last)]


def deal(rows: Sequence[Row], *, rank: int, world: int, micro_batch: int, forwards: int) -> list[list[Row]]:
    """The micro-batches of one rank: rows of like length lie together, and every rank gets `forwards` of them.

    Which forward pass a row lands in does not change the gradient of the step, because its loss is summed over the
    step's target tokens on all ranks. A micro-batch may be empty when the data ends.
    """
    ordered = sorted(rows, key=lambda row: len(row.ids), reverse=True)
    chunks = [ordered[start : start + micro_batch] for start in range(0, len(ordered), micro_batch)]
    mine = chunks[rank::world]
    return mine + [[] for _ in range(forwards - len(mine))]


def collate(rows: Sequence[Row], pad_id: int) -> Batch:
    """Pad on the right to the longest row. No rows give one token without a target, which costs nothing."""
    width = max((len(row.ids) for row in rows), default=1)
    height = max(len(rows), 1)
    input_ids = torch.full((height, width), pad_id, dtype=torch.long)
    attention_mask = torch.zeros((height, width), dtype=torch.long)
    labels = torch.full((height, width), IGNORED, dtype=torch.long)
    for index, row in enumerate(rows):
        ids, length = torch.tensor(row.ids, dtype=torch.long), len(row.ids)
        input_ids[index, :length] = ids
        attention_mask[index, :length] = 1
        labels[index, :length] = ids.masked_fill(~torch.tensor(row.trained), IGNORED)
    if not rows:
        attention_mask[:, 0] = 1
    return Batch(input_ids, attention_mask, labels)

"""What the model can do: held-out loss and sample answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from transformers import PreTrainedTokenizerBase

from training.batches import collate, deal
from training.dataset import Dataset
from training.distributed import gather_numbers
from training.engine import summed_loss
from training.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor


@torch.no_grad()
def held_out_loss(engine: Any, held_out: Dataset, *, micro_batch: int, pad_id: int, device: torch.device) -> float:
    """The mean loss over the target tokens of the held-out rows, shared out over all ranks."""
    engine.eval()
    world = dist.get_world_size()
    forwards = math.ceil(len(held_out.rows) / (micro_batch * world))  # alike on every rank: ZeRO-3 gathers in each
    total = 0.0
    for rows in deal(held_out.rows, rank=dist.get_rank(), world=world, micro_batch=micro_batch, forwards=forwards):
        total += float(summed_loss(engine, collate(rows, pad_id).to(device)))
    return sum(numbers[0] for numbers in gather_numbers([total], device)) / held_out.targets


@torch.no_grad()
def sample_answers(
    engine: Any, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, device: torch.device
) -> list[tuple[str, str]]:
    """(prompt, greedy answer) for each of the recipe's prompts, on rank 0; on all at ZeRO-3, where all must help."""
    if recipe.zero_stage != 3 and dist.get_rank() != 0:
        return []
    engine.eval()
    return [
        (prompt, _answer(engine, tokenizer, prompt, recipe.sample_tokens, device)) for prompt in recipe.sample_prompts
    ]


def _answer(engine: Any, tokenizer: PreTrainedTokenizerBase, prompt: str, tokens: int, device: torch.device) -> str:
    chat = [{"role": "user", "content": prompt}]
    inputs: Any = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids: Tensor = inputs["input_ids"].to(device)
    output = engine.module.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        do_sample=False,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
    )
    return str(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))

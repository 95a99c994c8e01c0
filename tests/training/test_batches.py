from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.batches import IGNORED, collate, deal, step_rows
from training.dataset import Row
from training.recipe import Recipe
from training.schedule import learning_rate, total_steps

SIZES = st.integers(1, 40)


def rows_of(lengths: list[int]) -> list[Row]:
    return [Row(line, list(range(length)), [True] * length) for line, length in enumerate(lengths)]


@given(SIZES, st.integers(0, 3), SIZES, SIZES)
def test_the_stream_is_the_same_whatever_the_steps_and_each_epoch_holds_every_row_once(
    rows: int, seed: int, first: int, second: int
) -> None:
    def stream(step: int) -> list[int]:
        parts = [step_rows(rows, seed, position, step, None) for position in range(0, 3 * rows, step)]
        return list(itertools.chain(*parts))[: 3 * rows]

    assert stream(first) == stream(second)
    for epoch in range(3):
        assert sorted(stream(first)[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, second = step_rows(50, 0, 0, 50, None), step_rows(50, 0, 50, 50, None)
    assert first != second
    assert first != step_rows(50, 1, 0, 50, None)
    assert first != list(range(50))


def test_the_stream_ends_where_it_should() -> None:
    assert len(step_rows(10, 0, 8, 4, 10)) == 2
    assert step_rows(10, 0, 10, 4, 10) == []


@given(st.lists(st.integers(1, 9), max_size=24), st.integers(1, 4), st.integers(1, 3))
def test_every_row_of_a_step_is_dealt_to_one_rank_once(lengths: list[int], world: int, micro_batch: int) -> None:
    rows = rows_of(lengths)
    forwards = -(-len(rows) // (world * micro_batch))
    hands = [deal(rows, rank=rank, world=world, micro_batch=micro_batch, forwards=forwards) for rank in range(world)]
    assert all(len(hand) == forwards for hand in hands)
    assert all(len(micro) <= micro_batch for hand in hands for micro in hand)
    dealt = [row.line for hand in hands for micro in hand for row in micro]
    assert sorted(dealt) == [row.line for row in rows]


def test_padding_is_never_a_target() -> None:
    batch = collate([Row(1, [5, 6, 7], [False, False, True]), Row(2, [8, 9], [False, True])], pad_id=3)
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 9, 3]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.labels.tolist() == [[IGNORED, IGNORED, 7], [IGNORED, 9, IGNORED]]


def test_no_rows_make_a_batch_without_target() -> None:
    batch = collate([], pad_id=0)
    assert batch.labels.tolist() == [[IGNORED]]
    assert batch.attention_mask.tolist() == [[1]]


def recipe(**changes: object) -> Recipe:
    return Recipe(model="m", data="d", lr=1.0, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("epochs", "rows", "per_step", "steps"), [(1.0, 10, 4, 3), (2.0, 10, 4, 5), (0.5, 10, 4, 2), (0.001, 10, 4, 1)]
)
def test_epochs_become_steps(epochs: float, rows: int, per_step: int, steps: int) -> None:
    assert total_steps(recipe(epochs=epochs), 0, 0, rows, per_step) == steps


def test_steps_left_follow_the_position_and_max_steps_win() -> None:
    assert total_steps(recipe(epochs=2.0), step=2, position=8, rows=10, rows_per_step=6) == 4
    assert total_steps(recipe(epochs=1.0), step=3, position=10, rows=10, rows_per_step=4) == 3
    assert total_steps(recipe(max_steps=7), 2, 8, 10, 4) == 7


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.8535533905932737, 0.5, 0.14644660940672627]),
    ],
)
def test_learning_rates(schedule: str, expected: list[float]) -> None:
    by_steps, by_ratio = recipe(schedule=schedule, warmup_steps=2), recipe(schedule=schedule, warmup_ratio=0.3)
    assert [learning_rate(by_steps, step, 6) for step in range(1, 7)] == pytest.approx(expected)
    assert [learning_rate(by_ratio, step, 6) for step in range(1, 7)] == pytest.approx(expected)

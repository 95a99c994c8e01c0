"""Admission: strict order of priority and submission, never more than there is room for."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ainfinity.domain.schedule import Waiting, admit

TRIES = settings(derandomize=True, database=None, deadline=None, max_examples=500)

queues = st.lists(
    st.builds(
        Waiting,
        job_id=st.uuids().map(str),
        slots=st.integers(1, 6),
        priority=st.integers(-2, 2),
        order=st.tuples(st.integers(0, 3).map(float), st.uuids().map(str)),
    ),
    max_size=10,
    unique_by=lambda job: job.order,
)


def rank(job: Waiting) -> tuple[int, tuple[float, str]]:
    return -job.priority, job.order


@TRIES
@given(queues, st.integers(0, 8), st.integers(0, 8))
def test_the_first_in_order_start_and_never_more_than_fit(queue: list[Waiting], used: int, capacity: int) -> None:
    admitted = admit(queue, used, capacity)
    ordered = sorted(queue, key=rank)
    assert admitted == [job.job_id for job in ordered[: len(admitted)]], "a prefix of the queue: nobody is overtaken"
    taken = sum(job.slots for job in ordered[: len(admitted)])
    oversize = used == 0 and len(admitted) == 1 and ordered[0].slots > capacity
    assert not admitted or used + taken <= capacity or oversize
    # The next one was held back for want of room only.
    if len(admitted) < len(ordered) and not oversize:
        next_one = ordered[len(admitted)]
        assert used + taken + next_one.slots > capacity
        assert used + taken > 0 or next_one.slots <= capacity


@TRIES
@given(queues, st.integers(0, 8))
def test_a_backend_that_queues_by_itself_gets_all_in_order(queue: list[Waiting], used: int) -> None:
    assert admit(queue, used, None) == [job.job_id for job in sorted(queue, key=rank)]


@TRIES
@given(queues, st.integers(1, 8))
def test_everything_starts_in_the_end(queue: list[Waiting], capacity: int) -> None:
    started: list[str] = []
    left = list(queue)
    while left:
        now = admit(left, 0, capacity)
        assert now, "an idle machine starts something"
        started += now
        left = [job for job in left if job.job_id not in now]
    assert started == [job.job_id for job in sorted(queue, key=rank)]


def test_a_large_job_is_not_starved_by_small_ones() -> None:
    large = Waiting("large", 4, 0, (1.0, "a"))
    small = Waiting("small", 1, 0, (2.0, "b"))
    urgent = Waiting("urgent", 1, 5, (3.0, "c"))
    assert admit([small, large], used=1, capacity=4) == []
    assert admit([small, large, urgent], used=1, capacity=4) == ["urgent"]
    assert admit([small, large], used=0, capacity=4) == ["large"]


def test_a_job_larger_than_everything_waits_for_an_idle_machine() -> None:
    huge = Waiting("huge", 9, 0, (1.0, "a"))
    assert admit([huge], used=1, capacity=4) == []
    assert admit([huge, Waiting("next", 1, 0, (2.0, "b"))], used=0, capacity=4) == ["huge"]

"""Which queued jobs may start: strict order of priority, then of submission."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that waits for room. `order` is its place among equals: the time and id of its submission."""

    job_id: str
    slots: int
    priority: int
    order: tuple[float, str]


def admit(waiting: Iterable[Waiting], used: int, capacity: int | None) -> list[str]:
    """Return the ids of the jobs that may start now, in order.

    The first job that does not fit holds back all after it, so that a large job is never starved by small ones. A job
    larger than the whole capacity is admitted when nothing else runs; the backend then refuses it by name.
    """
    ordered = sorted(waiting, key=lambda job: (-job.priority, job.order))
    if capacity is None:
        return [job.job_id for job in ordered]
    admitted: list[str] = []
    for job in ordered:
        fits = used + job.slots <= capacity or (used == 0 and job.slots > capacity)
        if not fits:
            break
        admitted.append(job.job_id)
        used += job.slots
    return admitted

"""Event appends against the SQLModel ORM's, one per transaction, on the same kind of file with the same settings."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from sqlmodel import Session

from ainfinity.schema.event import Event, EventType
from ainfinity.store import events
from ainfinity.store.store import Store
from ainfinity.store.tables import EventRow
from scripts.bench.measure import Figure, at_least, by_turns
from scripts.bench.seed import NOW, make_store

_BATCH = 100


def measure(folder: Path, rounds: int = 9, appends: int = 300) -> list[Figure]:
    """Rates are medians of `rounds` runs of `appends` events each."""
    ours, control = make_store(folder / "ours.db", 100), make_store(folder / "control.db", 100)
    job = _first_job(ours)
    # A sample is a fact that changes no row; a checkpoint is folded into its job's row as well.
    fact = Event(EventType.TRAINER_SAMPLE, job, NOW, "engine", 1, {"step": 1, "prompt": "p", "answer": "a" * 80})
    folded = Event(EventType.TRAINER_CHECKPOINT, job, NOW, "engine", 1, {"step": 1, "path": "p", "seconds": 1.0})

    def orm() -> int | None:
        with Session(control.database.engine) as session:
            data = {"step": 1, "prompt": "p", "answer": "a" * 80}
            row = EventRow(job_id=job, attempt=1, type="trainer.sample", at=NOW, actor="engine", data=data)
            session.add(row)
            session.commit()
            return row.seq  # what an append gives back

    def one(event: Event) -> Callable[[], None]:
        return lambda: _append(ours, [event])

    def batch() -> None:
        _append(ours, [fact] * _BATCH)

    orm_rate, one_rate, folded_rate, batch_rate = by_turns(
        rounds,
        lambda: _rate(orm, appends),
        lambda: _rate(one(fact), appends),
        lambda: _rate(one(folded), appends),
        lambda: _rate(batch, 10) * _BATCH,
    )
    ours.close()
    control.close()
    return [
        at_least("event append, one a transaction", one_rate, "events/s", 3, orm_rate),
        at_least("event append, one a transaction, folded into its job", folded_rate, "events/s", 1, orm_rate),
        at_least("event append, batches of 100", batch_rate, "events/s", 20, orm_rate),
    ]


def _append(store: Store, batch: list[Event]) -> None:
    with store.write() as connection:
        events.append(connection, batch)


def _rate(action: Callable[[], object], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        action()
    return times / (time.perf_counter() - began)


def _first_job(store: Store) -> str:
    with store.read() as connection:
        return events.read(connection, limit=1)[0].job_id

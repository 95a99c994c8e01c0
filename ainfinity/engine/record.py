"""Recording decisions: events in one fenced transaction, each job only if nobody changed it meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ainfinity.core.config import Settings
from ainfinity.domain.cost import least_cost
from ainfinity.domain.decide import Call, Decision
from ainfinity.engine.fence import Fence
from ainfinity.engine.launch import attempt_name, deadline, provenance
from ainfinity.engine.view import LiveJob
from ainfinity.schema.actor import ENGINE
from ainfinity.schema.event import Event, EventType
from ainfinity.store import events, jobs
from ainfinity.store.events import JOB

#: Transactions stay short, so that no other writer waits long.
_BATCH = 200
_SEQ_BY_ID = sa.select(JOB.c.id, JOB.c.seq).where(JOB.c.id.in_(sa.bindparam("ids", expanding=True)))


class Recorder:
    """Turns decisions into stored events."""

    def __init__(self, fence: Fence, settings: Settings) -> None:
        self.fence = fence
        self.settings = settings
        self._installation = ""

    def record(self, decided: Sequence[tuple[LiveJob, Decision]], backend: str) -> list[tuple[LiveJob, Decision]]:
        """Store the events of the decisions and return those that hold: jobs that changed since are left for later."""
        held: list[tuple[LiveJob, Decision]] = []
        writing = [pair for pair in decided if pair[1].events]
        held.extend(pair for pair in decided if not pair[1].events)
        for start in range(0, len(writing), _BATCH):
            batch = writing[start : start + _BATCH]
            # An intent must not be lost with the power: a machine may follow from it.
            durable = any(decision.call == Call.LAUNCH for _, decision in batch)
            with self.fence.write(durable=durable) as connection:
                fresh = self._unchanged(connection, batch)
                self._append(connection, fresh, backend)
            held.extend(fresh)
        return held

    def append(self, events_: Sequence[Event]) -> None:
        """Store events whatever else changed meanwhile."""
        with self.fence.write() as connection:
            events.append(connection, events_, self.fence.store.places)

    def _unchanged(
        self, connection: Connection, batch: Sequence[tuple[LiveJob, Decision]]
    ) -> list[tuple[LiveJob, Decision]]:
        ids = [job.job.id for job, _ in batch]
        rows = connection.execute(_SEQ_BY_ID, {"ids": ids})
        current = {row.id: row.seq for row in rows}
        return [(job, decision) for job, decision in batch if current.get(job.job.id) == job.seq]

    def _append(self, connection: Connection, batch: Sequence[tuple[LiveJob, Decision]], backend: str) -> None:
        now = self.fence.store.clock.now()
        if not self._installation:
            self._installation = jobs.installation(connection)
        made: list[Event] = []
        for job, decision in batch:
            for kind, data in decision.events:
                number = decision.attempt if kind.startswith("attempt.") else 0
                if kind == EventType.ATTEMPT_INTENDED:
                    data = self._intent(connection, job, number, backend, now)
                made.append(Event(kind, job.job.id, now, ENGINE.name, number, dict(data)))
        events.append(connection, made, self.fence.store.places)

    def _intent(self, connection: Connection, job: LiveJob, number: int, backend: str, now: float) -> Mapping[str, Any]:
        plan = {} if backend == "local" else jobs.spec_and_plan(connection, job.job.id)[2]
        spent, default = least_cost(job.job, now), self.settings.default_deadline
        return {
            "name": attempt_name(self._installation, job.job.id, number),
            "backend": backend,
            "resume_step": job.job.resume_step,
            "deadline": deadline(job.spec, plan, spent, backend, default, now),
            "provenance": provenance(job.spec),
        }

"""The jobs that the engine works on, kept up to date by what changed since the last look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ainfinity.domain.fold import AttemptFold, JobFold
from ainfinity.schema.states import ATTEMPT_TERMINAL, JOB_ENGINE
from ainfinity.store.events import JOB, JOB_FOLD, job_fold, last_seq
from ainfinity.store.jobs import attempt_folds

_EXTRA = ("name", "owner", "infra", "slots", "priority", "seq")
_COLUMNS = [JOB.c[name] for name in (*JOB_FOLD, *_EXTRA)]
_STATES = tuple(str(state) for state in JOB_ENGINE)
# Built once: to build a statement of so many columns costs more than to run it.
_LIVE = sa.select(*_COLUMNS).where(JOB.c.state.in_(_STATES))
_CHANGED = sa.select(*_COLUMNS).where(JOB.c.seq > sa.bindparam("cursor"))


@dataclass(slots=True)
class LiveJob:
    """One job as of event `seq`, with its newest attempt and how far that one's output was taken in."""

    job: JobFold
    seq: int
    name: str
    owner: str
    infra: str
    slots: int
    priority: int
    spec: dict[str, Any]
    attempt: AttemptFold | None = None
    log_offset: int = 0
    line_seq: int = 0

    @property
    def live_attempt(self) -> AttemptFold | None:
        """The newest attempt unless it is over."""
        if self.attempt is None or self.attempt.state in ATTEMPT_TERMINAL:
            return None
        return self.attempt


class LiveView:
    """All jobs that are the engine's to carry out, by id."""

    def __init__(self) -> None:
        self.jobs: dict[str, LiveJob] = {}
        self.cursor = -1

    def refresh(self, connection: Connection) -> None:
        """Take in every job that changed since the last refresh; the first one reads all live jobs."""
        cursor = last_seq(connection)
        if cursor == self.cursor:
            return
        rows = connection.execute(_LIVE if self.cursor < 0 else _CHANGED, {"cursor": self.cursor}).all()
        live = [row for row in rows if row.state in _STATES]
        for row in rows:
            if row.state not in _STATES:
                self.jobs.pop(row.id, None)
        specs = self._new_specs(connection, [row.id for row in live if row.id not in self.jobs])
        for row in live:
            known = self.jobs.get(row.id)
            spec = known.spec if known else specs[row.id]
            extra = {name: getattr(row, name) for name in _EXTRA}
            self.jobs[row.id] = LiveJob(job=job_fold(row), spec=spec, **extra)
        self._take_attempts(connection, [(row.id, row.attempt) for row in live if row.attempt])
        self.cursor = cursor

    def _new_specs(self, connection: Connection, ids: list[str]) -> dict[str, dict[str, Any]]:
        specs: dict[str, dict[str, Any]] = {}
        for start in range(0, len(ids), 500):
            part = sa.select(JOB.c.id, JOB.c.spec).where(JOB.c.id.in_(ids[start : start + 500]))
            specs.update((row.id, row.spec) for row in connection.execute(part))
        return specs

    def _take_attempts(self, connection: Connection, keys: list[tuple[str, int]]) -> None:
        for job_id, (attempt, offset, line_seq) in attempt_folds(connection, keys).items():
            job = self.jobs[job_id]
            job.attempt, job.log_offset, job.line_seq = attempt, offset, line_seq

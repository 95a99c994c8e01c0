"""A store and its services in a folder of one test, and jobs in any state."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ainfinity.core.config import Settings
from ainfinity.domain.fold import fold
from ainfinity.schema.actor import Actor, Role
from ainfinity.schema.event import Event, EventType
from ainfinity.schema.states import AttemptState, JobState
from ainfinity.schema.training_job import JobSpec
from ainfinity.schema.views import JobRow
from ainfinity.services.training_service import TrainingService
from ainfinity.store import events, jobs
from ainfinity.store.events import ATTEMPT, EVENT, JOB, attempt_fold, job_fold
from ainfinity.store.store import Store, open_store

ADMIN = Actor("local:ann")
VIEWER = Actor("local:vic", Role.VIEWER)
LAUNCHER = Actor("local:lou", Role.LAUNCHER)
APPROVER = Actor("local:abe", Role.APPROVER)

CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}


@dataclass
class TickingClock:
    """Time that only a test moves."""

    at: float = 1_760_000_000.0

    def now(self) -> float:
        return self.at

    def move(self, seconds: float) -> None:
        self.at += seconds


def write_chats(path: Path, rows: int = 4) -> Path:
    path.write_text("".join(json.dumps(CHAT) + "\n" for _ in range(rows)))
    return path


def copy_database(template: Path, folder: Path) -> None:
    """Give `folder` a database with its schema: making one takes longer than most tests."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in template.glob("ainfinity.db*"):
        shutil.copy(file, folder / file.name)


@dataclass
class Workplace:
    """What a test needs of the services, and a way to bring a job into any state as the engine would."""

    root: Path
    settings: Settings
    clock: TickingClock = field(default_factory=TickingClock)

    def __post_init__(self) -> None:
        self.store: Store = open_store(self.settings, self.clock)
        self.service = TrainingService(self.store, jobs_dir=self.settings.jobs_dir)
        self.data = write_chats(self.root / "data.jsonl")
        self.keys = 0

    def spec(self, name: str = "first", **changes: Any) -> JobSpec:
        """A small job; `changes` by dotted path with `__`, such as `policy__approval`."""
        spec: dict[str, Any] = {"name": name, "recipe": {"model": "tiny", "data": str(self.data)}}
        for path, value in changes.items():
            *parents, last = path.split("__")
            inner = spec
            for parent in parents:
                inner = inner.setdefault(parent, {})
            inner[last] = value
        return JobSpec.model_validate(spec)

    def launch(self, name: str = "first", actor: Actor = ADMIN, **changes: Any) -> JobRow:
        self.keys += 1
        return self.service.launch_job(self.spec(name, **changes), f"key-{name}-{self.keys}", actor)

    def record(self, job_id: str, *kinds: EventType | tuple[EventType, dict[str, Any]], attempt: int = 1) -> None:
        """Append events as the engine does."""
        made: list[Event] = []
        for kind in kinds:
            what, data = kind if isinstance(kind, tuple) else (kind, {})
            number = 0 if what.startswith(("job.", "contact.")) else attempt
            if what == EventType.ATTEMPT_INTENDED:
                data = {"name": f"ain-{job_id}-a{attempt}", "backend": "local"} | data
            made.append(Event(what, job_id, self.clock.now(), "engine", number, data))
        with self.store.write() as connection:
            events.append(connection, made, self.store.places)

    def row(self, job_id: str) -> JobRow:
        with self.store.read() as connection:
            return jobs.get(connection, job_id)

    def events(self, job_id: str = "") -> list[Event]:
        with self.store.read() as connection:
            return events.read(connection, job_id, limit=100_000)

    def in_state(self, state: JobState, name: str = "first", **changes: Any) -> str:
        """Return the id of a job in that state, brought there along the table of states."""
        if state in (JobState.AWAITING_APPROVAL, JobState.REJECTED):
            changes["policy__approval"] = "required"
        job_id = self.launch(name, **changes).id
        if state == JobState.REJECTED:
            self.service.reject_job(job_id, ADMIN, "no")
        self.record(job_id, *_WAY.get(state, ()))
        assert self.row(job_id).state == state
        return job_id

    def check_fold(self) -> int:
        """Compare every row with the fold of its events and return how many rows were compared."""
        with self.store.read() as connection:
            rows = {row.id: row for row in connection.execute(JOB.select())}
            attempts = {(row.job_id, row.number): row for row in connection.execute(ATTEMPT.select())}
            by_job: dict[str, list[Event]] = {}
            for row in connection.execute(EVENT.select().order_by(EVENT.c.seq)):
                by_job.setdefault(row.job_id, []).append(events.event_of(row))
        folded: set[tuple[str, int]] = set()
        for job_id, row in rows.items():
            job, mine = fold(job_id, by_job[job_id])
            assert job == job_fold(row)
            folded |= {(job_id, number) for number in mine}
            for number, attempt in mine.items():
                assert attempt == attempt_fold(attempts[job_id, number])
        assert folded == attempts.keys()
        return len(rows)


_UP_TO_RUNNING = (EventType.ATTEMPT_INTENDED, EventType.ATTEMPT_LAUNCHED, EventType.ATTEMPT_RUNNING)
_WAY: dict[JobState, tuple[EventType, ...]] = {
    JobState.LAUNCHING: _UP_TO_RUNNING[:2],
    JobState.RUNNING: _UP_TO_RUNNING,
    JobState.RECOVERING: (*_UP_TO_RUNNING, EventType.ATTEMPT_RECOVERING),
    JobState.CANCELLING: (*_UP_TO_RUNNING, EventType.CANCEL_REQUESTED),
    JobState.SUCCEEDED: (*_UP_TO_RUNNING, EventType.ATTEMPT_SUCCEEDED, EventType.SUCCEEDED),
    JobState.FAILED: (*_UP_TO_RUNNING, EventType.ATTEMPT_FAILED, EventType.FAILED),
    JobState.CANCELLED: (
        *_UP_TO_RUNNING,
        EventType.CANCEL_REQUESTED,
        EventType.ATTEMPT_CANCELLED,
        EventType.CANCELLED,
    ),
}


def states(*wanted: JobState) -> Iterable[JobState]:
    """All states that a person can meet, or those given: `planning` lasts for no longer than a transaction."""
    return wanted or [state for state in JobState if state != JobState.PLANNING]


__all__ = [
    "ADMIN", "APPROVER", "CHAT", "LAUNCHER", "VIEWER", "AttemptState", "TickingClock", "Workplace", "copy_database",
    "states", "write_chats",
]  # fmt: skip

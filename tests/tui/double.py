"""A client in memory that keeps the port's promises, and with which a test can make things happen or fail.

Rows come from the real fold of the events that a test records; feed, metrics and logs go on from any place.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from ainfinity.core.exceptions import AinfinityError, AmbiguousName, NotFound, NotSupported, WrongState
from ainfinity.domain.fold import AttemptFold, JobFold, fold_attempt, fold_job
from ainfinity.schema.event import Event, EventType
from ainfinity.schema.states import JOB_LIVE, JobState
from ainfinity.schema.views import (
    ArtifactRow,
    AttemptRow,
    FeedItem,
    JobDetail,
    JobQuery,
    JobRow,
    LogChunk,
    MetricPoint,
    Notice,
    PlanView,
    Progress,
    WorkerStatus,
)

if TYPE_CHECKING:
    from ainfinity.client.port import Client
    from ainfinity.schema.training_job import JobSpec

NOW = 1_760_000_000.0


class FixedClock:
    """A clock that stands still until it is set."""

    def __init__(self, now: float = NOW) -> None:
        self.time = now

    def now(self) -> float:
        return self.time


def job_row(job: str, name: str, **changes: Any) -> JobRow:
    """Return a row of a job that was just submitted."""
    row = JobRow(
        id=job,
        name=name,
        state=JobState.QUEUED,
        desired="run",
        owner="local:ana",
        model="HuggingFaceTB/SmolLM2-135M-Instruct",
        infra="local",
        gpus="",
        priority=0,
        tags=(),
        note="",
        attempt=0,
        submitted_at=NOW - 600,
        started_at=None,
        finished_at=None,
        stale_since=None,
        error_code="",
        error_message="",
        seq=0,
    )
    return replace(row, **changes)


class MemoryClient:
    """The port over plain lists. `faults[method]` are errors that its next calls raise, first to last."""

    def __init__(self, clock: FixedClock | None = None) -> None:
        self.clock = clock or FixedClock()
        self.rows: dict[str, JobRow] = {}
        self.history: list[Event] = []
        self.folds: dict[str, JobFold] = {}
        self.attempts: dict[str, dict[int, AttemptFold]] = defaultdict(dict)
        self.files: dict[str, list[ArtifactRow]] = defaultdict(list)
        self.specs: dict[str, dict[str, Any]] = {}
        self.points: dict[str, list[MetricPoint]] = defaultdict(list)
        self.lines: dict[tuple[str, int], list[str]] = defaultdict(list)
        self.faults: dict[str, list[Exception]] = defaultdict(list)
        self.calls: list[tuple[str, str]] = []
        self.worker_alive = True
        self.closed = False
        self._rev = 0
        self._bell = asyncio.Event()

    # What a test makes happen.

    def add(self, row: JobRow) -> JobRow:
        """Add a job as it stands, without a history."""
        self.rows[row.id] = row
        self.folds[row.id] = JobFold(
            row.id,
            state=JobState(row.state),
            attempt=row.attempt,
            submitted_at=row.submitted_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
            error_code=row.error_code,
            error_message=row.error_message,
            stale_since=row.stale_since,
        )
        self._rev = max(self._rev, row.progress.rev)
        return row

    def record(self, type_: str, job: str, *, attempt: int = 0, at: float | None = None, **data: Any) -> Event:
        """Append an event, fold it into the job's row, ring."""
        actor = "local:ana" if type_.startswith("job.") else "worker:1"
        event = Event(type_, job, self.clock.now() if at is None else at, actor, attempt, data, len(self.history) + 1)
        self.history.append(event)
        fold = fold_job(self.folds[job], event)
        self.folds[job] = fold
        if attempt:
            entry = fold_attempt(self.attempts[job].get(attempt), event)
            if entry is not None:
                self.attempts[job][attempt] = entry
        if job in self.rows:
            self.rows[job] = replace(
                self.rows[job],
                state=fold.state,
                desired=fold.desired,
                attempt=fold.attempt,
                started_at=fold.started_at,
                finished_at=fold.finished_at,
                stale_since=fold.stale_since,
                error_code=fold.error_code,
                error_message=fold.error_message,
                seq=event.seq,
            )
        self.ring()
        return event

    def step(self, job: str, step: int, total: int, loss: float | None, *, eta: float | None = None) -> None:
        """Report an optimizer step."""
        self._rev += 1
        progress = Progress(step, total, loss, 1e-4, 160.0, eta, self.clock.now(), self._rev)
        self.rows[job] = replace(self.rows[job], progress=progress)
        attempt = max(1, self.rows[job].attempt)
        self.points[job].append(MetricPoint(attempt, step, self.clock.now(), {"loss": loss}))
        self.ring()

    def log(self, job: str, *lines: str, attempt: int = 1) -> None:
        """Append log lines."""
        self.lines[job, attempt].extend(lines)
        self.ring()

    def ring(self) -> None:
        """Wake whoever follows."""
        self._bell.set()
        self._bell = asyncio.Event()

    def _enter(self, method: str, job: str = "") -> None:
        self.calls.append((method, job))
        if self.faults[method]:
            raise self.faults[method].pop(0)

    def _find(self, job: str) -> JobRow:
        if job in self.rows:
            return self.rows[job]
        found = [row for row in self.rows.values() if row.name == job]
        if found:
            return max(found, key=lambda row: row.submitted_at)
        found = [row for row in self.rows.values() if row.id.startswith(job) or row.name.startswith(job)]
        if len(found) > 1:
            raise AmbiguousName(f"Several jobs begin with {job}.")
        if not found:
            raise NotFound(f"There is no job {job}.")
        return found[0]

    # The port.

    async def plan(self, spec: JobSpec) -> PlanView:
        raise NotSupported("The double plans nothing.")

    async def submit(self, spec: JobSpec, key: str, *, plan_hash: str = "") -> JobRow:
        raise NotSupported("The double takes no specs.")

    async def list_jobs(self, query: JobQuery) -> Sequence[JobRow]:
        self._enter("list_jobs")
        rows = sorted(self.rows.values(), key=lambda row: (-row.submitted_at, row.id))
        return rows if query.limit is None else rows[: query.limit]

    async def get_job(self, job: str) -> JobDetail:
        self._enter("get_job", job)
        row = self._find(job)
        fold = self.folds[row.id]
        attempts = tuple(_attempt_row(entry) for entry in self.attempts[row.id].values())
        return JobDetail(row, self.specs.get(row.id, {}), None, "", attempts, tuple(self.files[row.id]), fold.result)

    async def cancel(self, job: str) -> JobRow:
        self._enter("cancel", job)
        row = self._find(job)
        if row.state not in JOB_LIVE:
            raise WrongState(f"{row.name} is over: {row.state}.")
        if row.state != JobState.CANCELLING:
            self.record(EventType.CANCEL_REQUESTED, row.id)
        return self.rows[row.id]

    async def retry(self, job: str, *, from_step: int | None = None, spec: JobSpec | None = None) -> JobRow:
        self._enter("retry", job)
        row = self._find(job)
        if row.state not in (JobState.FAILED, JobState.CANCELLED):
            raise WrongState(f"{row.name} is {row.state}.", hint="Only a failed or cancelled job can be retried.")
        self.record(EventType.RETRIED, row.id, from_step=from_step)
        return self.rows[row.id]

    async def approve(self, job: str, plan_hash: str = "") -> JobRow:
        self._enter("approve", job)
        row = self._find(job)
        if row.state != JobState.AWAITING_APPROVAL:
            raise WrongState(f"{row.name} does not wait for approval.")
        self.record(EventType.APPROVED, row.id)
        self.record(EventType.QUEUED, row.id)
        return self.rows[row.id]

    async def reject(self, job: str, reason: str) -> JobRow:
        raise NotSupported("The double rejects nothing.")

    async def delete(self, job: str) -> None:
        self._enter("delete", job)
        row = self._find(job)
        if row.state in JOB_LIVE:
            raise WrongState(f"{row.name} is not over.")
        del self.rows[row.id]
        self.record(EventType.DELETED, row.id, name=row.name)

    async def events(self, job: str = "", *, after: int = 0, limit: int = 1000) -> Sequence[Event]:
        self._enter("events", job)
        found = self._find(job).id if job else ""
        later = [event for event in self.history if event.seq > after]
        return [event for event in later if not found or event.job_id == found][:limit]

    async def feed(self, cursor: int | None = None, rev: int | None = None) -> AsyncGenerator[FeedItem]:
        cursor = len(self.history) if cursor is None else cursor
        rev = self._rev if rev is None else rev
        while True:
            self._enter("feed")
            bell = self._bell
            new = tuple(event for event in self.history if event.seq > cursor)
            moved = {job: row.progress for job, row in self.rows.items() if row.progress.rev > rev}
            if not new and not moved:
                await bell.wait()
                continue
            cursor = new[-1].seq if new else cursor
            rev = max((entry.rev for entry in moved.values()), default=rev)
            rows = tuple(self.rows[job] for job in {event.job_id for event in new} if job in self.rows)
            yield FeedItem(cursor, rev, new, rows, moved)

    async def logs(
        self, job: str, *, attempt: int | None = None, offset: int | None = None, tail: int | None = None
    ) -> LogChunk:
        self._enter("logs", job)
        row = self._find(job)
        number = row.attempt if attempt is None else attempt
        lines = self.lines[row.id, number]
        start = max(0, len(lines) - tail) if offset is None and tail is not None else offset or 0
        ended = row.state not in JOB_LIVE or number < row.attempt
        # The offset counts lines here, not bytes; to a front it is opaque.
        return LogChunk(number, tuple(lines[start:]), len(lines), ended)

    async def follow_logs(
        self, job: str, *, attempt: int | None = None, tail: int | None = 10
    ) -> AsyncGenerator[LogChunk]:
        chunk = await self.logs(job, attempt=attempt, tail=tail)
        while True:
            bell = self._bell
            if chunk.lines:
                yield chunk
            elif chunk.ended:
                newest = self._find(job)
                if newest.attempt == chunk.attempt or attempt is not None:
                    return
                chunk = await self.logs(job, attempt=newest.attempt, offset=0)
                continue
            elif self._find(job).attempt == chunk.attempt:
                await bell.wait()
            chunk = await self.logs(job, attempt=chunk.attempt or attempt, offset=chunk.offset)

    async def metrics(
        self, job: str, *, names: Sequence[str] = (), after: tuple[int, int] = (0, -1), limit: int | None = None
    ) -> Sequence[MetricPoint]:
        self._enter("metrics", job)
        return [point for point in self.points[self._find(job).id] if (point.attempt, point.step) > after]

    async def artifacts(self, job: str) -> Sequence[ArtifactRow]:
        return self.files[self._find(job).id]

    async def pull(self, job: str, what: str, folder: str, **options: Any) -> Sequence[str]:
        raise NotSupported("The double has no files.")

    async def notices(self, place: str, *, limit: int = 20) -> Sequence[Notice]:
        return []

    async def settle_notice(self, notice_id: int, result: Literal["sent", "failed"], detail: str = "") -> None:
        raise NotFound("There is no notice.")

    async def worker(self) -> WorkerStatus:
        self._enter("worker")
        live = sum(row.state in JOB_LIVE for row in self.rows.values())
        return WorkerStatus(self.worker_alive, "worker:1", 1, self.clock.now() + 10, live)

    async def ensure_worker(self) -> WorkerStatus:
        self._enter("ensure_worker")
        self.worker_alive = True
        return await self.worker()

    async def close(self) -> None:
        self.closed = True


def _attempt_row(entry: AttemptFold) -> AttemptRow:
    return AttemptRow(
        job_id=entry.job_id,
        number=entry.number,
        name=entry.name,
        state=entry.state,
        backend=entry.backend,
        handle=entry.handle,
        intent_at=entry.intent_at,
        started_at=entry.started_at,
        finished_at=entry.finished_at,
        exit_code=entry.exit_code,
        outcome=entry.outcome,
        reason=entry.reason,
        resume_step=entry.resume_step,
        provenance=entry.provenance,
    )


def as_client(client: MemoryClient) -> Client:
    """Hold the double to the port: a type checker refuses this line when they part."""
    return client


__all__ = ["NOW", "AinfinityError", "FixedClock", "MemoryClient", "as_client", "job_row"]

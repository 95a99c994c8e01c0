"""The Protocol that every front sees, and the values it speaks in.

Async, because fronts must never block. `LocalClient` runs the services on one thread; `RemoteClient` will speak HTTP.
Jobs are named by id, by name (the newest of that name) or by a prefix of either that fits one job.
Errors are `AinfinityError`s; each method names only those special to it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from ainfinity.schema.event import Event
from ainfinity.schema.views import (
    ArtifactRow,
    FeedItem,
    JobDetail,
    JobQuery,
    JobRow,
    LogChunk,
    MetricPoint,
    Notice,
    PlanView,
    WorkerStatus,
)

if TYPE_CHECKING:  # Importing pydantic costs more than all that `list` and completion may.
    from ainfinity.schema.training_job import JobSpec

__all__ = ["Client", "FeedItem", "JobQuery", "LogChunk", "Notice", "PlanView"]


class Client(Protocol):
    """All that a front can ask for."""

    async def plan(self, spec: JobSpec) -> PlanView:
        """Validate and plan without storing anything."""
        ...

    async def submit(self, spec: JobSpec, key: str, *, plan_hash: str = "") -> JobRow:
        """Store a job and queue it, or ask for its approval. The same `key` twice is one job.

        With `plan_hash` the launch is refused (`PlanChanged`) when the plan is another by now.

        Errors: NameTaken, KeyReused, DataInvalid, NotSupported, PlanChanged.
        """
        ...

    async def list_jobs(self, query: JobQuery) -> Sequence[JobRow]:
        """Return the jobs that fit."""
        ...

    async def get_job(self, job: str) -> JobDetail:
        """Return everything about one job."""
        ...

    async def cancel(self, job: str) -> JobRow:
        """Wish the job ended; the engine tears it down. Repeating it changes nothing. Errors: WrongState."""
        ...

    async def retry(self, job: str, *, from_step: int | None = None, spec: JobSpec | None = None) -> JobRow:
        """Queue a finished job again as a new attempt, from its newest or the given checkpoint.

        With another `spec` (same name) a new job is made that starts from nothing. Errors: WrongState.
        """
        ...

    async def approve(self, job: str, plan_hash: str = "") -> JobRow:
        """Approve the plan of that hash, or the one that stands. Errors: WrongState, PlanChanged."""
        ...

    async def reject(self, job: str, reason: str) -> JobRow:
        """Reject a job that waits for approval. Errors: WrongState."""
        ...

    async def delete(self, job: str) -> None:
        """Remove the record of a job that is over; its files stay. Errors: WrongState."""
        ...

    async def events(self, job: str = "", *, after: int = 0, limit: int = 1000) -> Sequence[Event]:
        """Return events after the cursor, of one job or of all, in order of `seq`."""
        ...

    def feed(self, cursor: int | None = None, rev: int | None = None) -> AsyncGenerator[FeedItem]:
        """Yield what changes, for as long as it is iterated; None means from the first iteration on.

        A front that has rows begins at their highest `seq` and `progress.rev`, so that nothing falls in between.
        """
        ...

    async def logs(
        self, job: str, *, attempt: int | None = None, offset: int | None = None, tail: int | None = None
    ) -> LogChunk:
        """Return log lines of an attempt (the newest by default) from a byte offset, or its last `tail` lines."""
        ...

    def follow_logs(self, job: str, *, attempt: int | None = None, tail: int | None = 10) -> AsyncGenerator[LogChunk]:
        """Yield log lines as they come, until the job is over; a new attempt follows on its own."""
        ...

    async def metrics(
        self, job: str, *, names: Sequence[str] = (), after: tuple[int, int] = (0, -1), limit: int | None = None
    ) -> Sequence[MetricPoint]:
        """Return reported steps after (attempt, step), all metrics or those named, evenly thinned out to `limit`."""
        ...

    async def artifacts(self, job: str) -> Sequence[ArtifactRow]:
        """Return what the job left: adapter or model, checkpoints, logs."""
        ...

    async def pull(self, job: str, what: str, folder: str) -> Sequence[str]:
        """Copy `adapter`, `model`, `checkpoint[:STEP]` or `logs` to a folder, checked by sha256; return the paths."""
        ...

    async def notices(self, place: str, *, limit: int = 20) -> Sequence[Notice]:
        """Claim notices owed to one place, for a minute each."""
        ...

    async def settle_notice(self, notice_id: int, result: Literal["sent", "failed"], detail: str = "") -> None:
        """Say what became of a claimed notice."""
        ...

    async def worker(self) -> WorkerStatus:
        """Tell whether a worker is alive and what it has to do."""
        ...

    async def ensure_worker(self) -> WorkerStatus:
        """Start a worker if jobs are live, or notices owed, and no lease is."""
        ...

    async def close(self) -> None:
        """Let go of files and threads. Jobs go on."""
        ...

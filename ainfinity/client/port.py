"""The Protocol that every front sees, and the values it speaks in.

Async, because fronts must never block. `LocalClient` runs the services on one thread; `RemoteClient` will speak HTTP.
Jobs are named by id, by name (the newest of that name) or by a prefix of either that fits one job.
Errors are `AinfinityError`s; each method names only those special to it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from ainfinity.schema.data import DatasetRow
from ainfinity.schema.event import Event
from ainfinity.schema.machines import Adoptables, Gpus, Orphans, Shell, SkyStatus
from ainfinity.schema.outside import OrphanRow
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

    async def extend(self, job: str, seconds: float) -> JobRow:
        """Wish a running job's deadline moved by so many seconds; its machine is told. Errors: WrongState."""
        ...

    async def keep(self, job: str, seconds: float) -> JobRow:
        """Wish a job's machine kept for so many seconds from now, or from the job's end. Errors: WrongState."""
        ...

    async def teardown(self, job: str) -> JobRow:
        """Wish a job's machine gone, kept or not; a job that runs on it is cancelled. Errors: WrongState."""
        ...

    async def shell(self, job: str, command: Sequence[str] = (), *, node: int = 0) -> Shell:
        """Return what to run for a shell, or a command, on a node of a job's machine.

        Errors: WrongState, NotSupported: it has no machine that can be reached. ComputeUnreachable.
        """
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

    async def pull(
        self, job: str, what: str, folder: str, *, progress: Callable[[int, int], None] | None = None
    ) -> Sequence[str]:
        """Bring `adapter`, `model`, `merged`, `checkpoint[:STEP]` or `logs` to a folder, checked by sha256.

        Returns the paths. Repeating it goes on with what is missing. `progress` gets the bytes that came, and in all.
        """
        ...

    async def gpus(self, name: str = "", *, infra: str = "", refresh: bool = False) -> Gpus:
        """Return the accelerators that can be had, of one name (`H100`, `H100:8`) or all, there or anywhere.

        Errors: ComputeUnreachable: SkyPilot does not answer, and never did.
        """
        ...

    async def orphans(self, *, refresh: bool = False) -> Orphans:
        """Return the machines with this installation's name that no live job owns."""
        ...

    async def answer_orphan(self, name: str, answer: Literal["keep", "remove"]) -> OrphanRow:
        """Say what becomes of an orphan. Errors: NotFound."""
        ...

    async def adoptable(self, *, refresh: bool = False) -> Adoptables:
        """Return what was started with plain SkyPilot. Errors: ComputeUnreachable, if it never answered."""
        ...

    async def adopt(self, kind: Literal["cluster", "managed"], ident: str, *, claim: bool = False) -> JobRow:
        """Show such a cluster or managed job as a job, which only a `claim` allows to end. Errors: NotFound."""
        ...

    async def sky_status(self) -> SkyStatus:
        """Return how SkyPilot's API server is. It is asked without ever being started."""
        ...

    async def start_sky(self) -> SkyStatus:
        """Start the API server of this machine. Errors: ComputeUnreachable; Refused where it lies elsewhere."""
        ...

    async def data_add(self, file: str, name: str = "") -> DatasetRow:
        """Keep a data file by its content. Errors: DataInvalid, NameTaken."""
        ...

    async def data_list(self) -> Sequence[DatasetRow]:
        """Return the data that is kept, newest first."""
        ...

    async def data_show(self, name: str) -> tuple[DatasetRow, str]:
        """Return one data set, by name or hash, and the path of its file. Errors: NotFound."""
        ...

    async def data_remove(self, name: str) -> DatasetRow:
        """Remove one. Errors: NotFound; WrongState while a live job uses it."""
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

"""The client in process: services on one SQLite file, called on one thread, so that no front ever blocks."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ainfinity.core.config import Settings
from ainfinity.core.exceptions import DatabaseLocked, FolderUnwritable
from ainfinity.core.secrets import open_secrets
from ainfinity.schema.actor import Actor
from ainfinity.schema.data import DatasetRow
from ainfinity.schema.event import Event
from ainfinity.schema.machines import Adoptables, Gpus, Orphans, Shell, SkyStatus
from ainfinity.schema.outside import OrphanRow
from ainfinity.schema.states import JOB_LIVE
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
from ainfinity.services.adoption import AdoptionService
from ainfinity.services.artifacts import ArtifactService
from ainfinity.services.changes import ChangeService
from ainfinity.services.datasets import DatasetService
from ainfinity.services.deliveries import DeliveryService
from ainfinity.services.logs import LogService
from ainfinity.services.machines import MachineService
from ainfinity.services.orphans import OrphanService
from ainfinity.services.outside import OutsideService
from ainfinity.services.planning import installed_backends
from ainfinity.services.provenance import source_of
from ainfinity.services.training_service import TrainingService
from ainfinity.store.doorbell import Listener
from ainfinity.store.store import Store

if TYPE_CHECKING:
    from ainfinity.schema.training_job import JobSpec

_T = TypeVar("_T")

#: A worker that was just started needs a moment to take its lease; no second one is started meanwhile.
_START_TIME = 10.0
#: How often an open feed makes sure that somebody carries the jobs out, in seconds.
_CHECK_WORKER = 5.0
#: The longest wait of a log follower: lines ring no bell.
_LOG_POLL = 0.2


class LocalClient:
    """The port, embedded. `actor` is who asks."""

    def __init__(self, store: Store, settings: Settings, actor: Actor, *, start_workers: bool = True) -> None:
        self.store = store
        self.settings = settings
        self.actor = actor
        self.start_workers = start_workers
        self._data = DatasetService(store, settings.data_dir)
        self._training = TrainingService(
            store,
            backends=installed_backends(),
            missing_secrets=self._missing_secrets,
            jobs_dir=settings.jobs_dir,
            keep_data=self._data.keep,
            default_deadline=settings.default_deadline,
        )
        self._changes = ChangeService(store)
        self._logs = LogService(store, settings.attempts_dir)
        self._deliveries = DeliveryService(store)
        outside = OutsideService(settings.cache_dir, store.clock)
        self._machines = MachineService(store, outside)
        self._artifacts = ArtifactService(store, settings.attempts_dir, self._machines.reach)
        self._orphans = OrphanService(store, outside, settings.orphan_after)
        self._adoption = AdoptionService(store, outside)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ainfinity-services")
        #: For what waits for somebody else, and must not hold up the rest.
        self._waiting = ThreadPoolExecutor(4, thread_name_prefix="ainfinity-waiting")
        self._started_at = -_START_TIME

    def _missing_secrets(self, names: Sequence[str]) -> list[str]:
        stored = set(open_secrets(self.settings).names())
        return [name for name in names if name not in stored]

    async def _call(self, work: Callable[..., _T], *arguments: Any, **named: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(work, *arguments, **named))

    async def _wait_for(self, work: Callable[..., _T], *arguments: Any, **named: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._waiting, partial(work, *arguments, **named))

    async def plan(self, spec: JobSpec) -> PlanView:
        """See `Client.plan`."""
        return await self._call(self._training.plan, await self._call(self._data.resolve, spec))

    async def submit(self, spec: JobSpec, key: str, *, plan_hash: str = "") -> JobRow:
        """See `Client.submit`. A worker is started if none is alive."""
        spec = await self._call(self._data.resolve, spec)
        await self._call(self._data.place, spec)
        source = await self._call(source_of, Path.cwd())
        row = await self._call(self._training.launch_job, spec, key, self.actor, plan_hash=plan_hash, provenance=source)
        await self.ensure_worker()
        return row

    async def list_jobs(self, query: JobQuery) -> Sequence[JobRow]:
        """See `Client.list_jobs`."""
        return await self._call(self._training.list_jobs, query)

    async def get_job(self, job: str) -> JobDetail:
        """See `Client.get_job`."""
        return await self._call(self._training.get_job_status, job)

    async def cancel(self, job: str) -> JobRow:
        """See `Client.cancel`."""
        row = await self._call(self._training.stop_job, job, self.actor)
        await self.ensure_worker()
        return row

    async def retry(self, job: str, *, from_step: int | None = None, spec: JobSpec | None = None) -> JobRow:
        """See `Client.retry`."""
        if spec is not None:
            await self.get_job(job)
            return await self.submit(spec, os.urandom(16).hex())
        row = await self._call(self._training.retry_job, job, self.actor, from_step=from_step)
        await self.ensure_worker()
        return row

    async def approve(self, job: str, plan_hash: str = "") -> JobRow:
        """See `Client.approve`."""
        row = await self._call(self._training.approve_job, job, self.actor, plan_hash)
        await self.ensure_worker()
        return row

    async def reject(self, job: str, reason: str) -> JobRow:
        """See `Client.reject`."""
        row = await self._call(self._training.reject_job, job, self.actor, reason)
        await self.ensure_worker()
        return row

    async def delete(self, job: str) -> None:
        """See `Client.delete`."""
        await self._call(self._training.delete_job, job, self.actor)

    async def events(self, job: str = "", *, after: int = 0, limit: int = 1000) -> Sequence[Event]:
        """See `Client.events`."""
        return await self._call(self._changes.events, job, after=after, limit=limit)

    async def feed(self, cursor: int | None = None, rev: int | None = None) -> AsyncGenerator[FeedItem]:
        """See `Client.feed`. While it is open, a worker is started whenever live jobs have none."""
        if cursor is None or rev is None:
            now_cursor, now_rev = await self._call(self._changes.now)
            cursor = now_cursor if cursor is None else cursor
            rev = now_rev if rev is None else rev
        checked = 0.0
        with Listener(self.store.database.path) as listener:
            while True:
                item = await self._call(self._changes.since, cursor, rev)
                if item.events or item.progress:
                    cursor, rev = item.cursor, item.rev
                    yield item
                    continue
                if time.monotonic() - checked >= _CHECK_WORKER:
                    checked = time.monotonic()
                    await self._check_worker()
                await listener.wait_async()

    async def _check_worker(self) -> None:
        try:
            await self.ensure_worker()
        except (DatabaseLocked, FolderUnwritable):
            return  # the next look is soon, and a feed has nobody to tell

    async def logs(
        self, job: str, *, attempt: int | None = None, offset: int | None = None, tail: int | None = None
    ) -> LogChunk:
        """See `Client.logs`."""
        return await self._call(self._logs.read, job, attempt=attempt, offset=offset, tail=tail)

    async def follow_logs(
        self, job: str, *, attempt: int | None = None, tail: int | None = 10
    ) -> AsyncGenerator[LogChunk]:
        """See `Client.follow_logs`."""
        chunk = await self.logs(job, attempt=attempt, tail=tail)
        while True:
            if chunk.lines:
                yield chunk
            elif chunk.ended or chunk.attempt == 0:
                newest = (await self.get_job(job)).job
                if newest.state not in JOB_LIVE and newest.attempt == chunk.attempt:
                    return
                if attempt is not None and chunk.ended:
                    return
                if newest.attempt != chunk.attempt and attempt is None:
                    chunk = await self.logs(job, attempt=newest.attempt, offset=0)
                    continue
                await asyncio.sleep(_LOG_POLL)
            else:
                await asyncio.sleep(_LOG_POLL)
            chunk = await self.logs(job, attempt=chunk.attempt or attempt, offset=chunk.offset)

    async def metrics(
        self, job: str, *, names: Sequence[str] = (), after: tuple[int, int] = (0, -1), limit: int | None = None
    ) -> Sequence[MetricPoint]:
        """See `Client.metrics`."""
        return await self._call(self._changes.metrics, job, names=names, after=after, limit=limit)

    async def artifacts(self, job: str) -> Sequence[ArtifactRow]:
        """See `Client.artifacts`."""
        return await self._call(self._artifacts.list, job)

    async def pull(
        self, job: str, what: str, folder: str, *, progress: Callable[[int, int], None] | None = None
    ) -> Sequence[str]:
        """See `Client.pull`."""
        told = None
        if progress is not None:
            told = partial(asyncio.get_running_loop().call_soon_threadsafe, progress)
        return await self._wait_for(self._artifacts.pull, job, what, folder, told)

    async def extend(self, job: str, seconds: float) -> JobRow:
        """See `Client.extend`."""
        return await self._call(self._training.extend_job, job, seconds, self.actor)

    async def keep(self, job: str, seconds: float) -> JobRow:
        """See `Client.keep`."""
        return await self._call(self._training.keep_job, job, seconds, self.actor)

    async def teardown(self, job: str) -> JobRow:
        """See `Client.teardown`."""
        row = await self._call(self._training.teardown_job, job, self.actor)
        await self.ensure_worker()
        return row

    async def shell(self, job: str, command: Sequence[str] = (), *, node: int = 0) -> Shell:
        """See `Client.shell`."""
        return await self._wait_for(self._machines.shell, job, command, node=node)

    async def gpus(self, name: str = "", *, infra: str = "", refresh: bool = False) -> Gpus:
        """See `Client.gpus`."""
        return await self._wait_for(self._machines.gpus, name, infra=infra, refresh=refresh)

    async def orphans(self, *, refresh: bool = False) -> Orphans:
        """See `Client.orphans`. A worker is started for what was found."""
        found = await self._wait_for(self._orphans.list, refresh=refresh)
        if found.rows:
            await self.ensure_worker()
        return found

    async def answer_orphan(self, name: str, answer: Literal["keep", "remove"]) -> OrphanRow:
        """See `Client.answer_orphan`."""
        row = await self._wait_for(self._orphans.answer, name, answer, self.actor)
        await self.ensure_worker()
        return row

    async def adoptable(self, *, refresh: bool = False) -> Adoptables:
        """See `Client.adoptable`."""
        return await self._wait_for(self._adoption.adoptable, refresh=refresh)

    async def adopt(self, kind: Literal["cluster", "managed"], ident: str, *, claim: bool = False) -> JobRow:
        """See `Client.adopt`."""
        row = await self._wait_for(self._adoption.adopt, kind, ident, self.actor, claim=claim)
        await self.ensure_worker()
        return row

    async def sky_status(self) -> SkyStatus:
        """See `Client.sky_status`."""
        return await self._wait_for(self._machines.sky_status)

    async def start_sky(self) -> SkyStatus:
        """See `Client.start_sky`."""
        return await self._wait_for(self._machines.start_sky, self.actor)

    async def data_add(self, file: str, name: str = "") -> DatasetRow:
        """See `Client.data_add`."""
        return await self._call(self._data.add, file, self.actor, name=name)

    async def data_list(self) -> Sequence[DatasetRow]:
        """See `Client.data_list`."""
        return await self._call(self._data.list)

    async def data_show(self, name: str) -> tuple[DatasetRow, str]:
        """See `Client.data_show`."""
        row = await self._call(self._data.show, name)
        return row, str(self._data.path_of(row))

    async def data_remove(self, name: str) -> DatasetRow:
        """See `Client.data_remove`."""
        return await self._call(self._data.remove, name, self.actor)

    async def notices(self, place: str, *, limit: int = 20) -> Sequence[Notice]:
        """See `Client.notices`."""
        return await self._call(self._deliveries.claim, place, limit)

    async def settle_notice(self, notice_id: int, result: Literal["sent", "failed"], detail: str = "") -> None:
        """See `Client.settle_notice`."""
        await self._call(self._deliveries.settle, notice_id, result, detail)

    async def worker(self) -> WorkerStatus:
        """See `Client.worker`."""
        return await self._call(self._changes.worker)

    async def ensure_worker(self) -> WorkerStatus:
        """See `Client.ensure_worker`."""
        status = await self.worker()
        due = time.monotonic() - self._started_at >= _START_TIME
        work = status.live_jobs or status.owed or status.orphans
        if self.start_workers and work and not status.alive and due:
            self._started_at = time.monotonic()
            await self._call(start_worker, self.settings)
        return status

    async def close(self) -> None:
        """See `Client.close`."""
        # What still waits for an answer ends by itself; nobody is there any more to be told.
        self._waiting.shutdown(wait=False, cancel_futures=True)
        await self._call(self.store.close)
        self._thread.shutdown(wait=True)


def start_worker(settings: Settings, *, until_idle: bool = True) -> int:
    """Start a worker that outlives this process and its terminal, and return its pid."""
    # All of them, for a script may have given others than its environment has.
    ours = {f"AINFINITY_{one.name.upper()}": str(getattr(settings, one.name)) for one in fields(settings)}
    environment = os.environ | {
        **ours,
        # The folder that a person happens to be in must not shadow the worker's modules.
        "PYTHONSAFEPATH": "1",
    }
    with (settings.data_dir / "worker.out").open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "ainfinity.worker", *(["--until-idle"] if until_idle else [])],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment,
            cwd=settings.data_dir,
            start_new_session=True,
        )
    return process.pid

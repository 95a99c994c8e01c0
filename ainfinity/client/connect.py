"""Ways in: `open_client` for fronts, `connect` for scripts and notebooks."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ainfinity.core.config import Settings, load_settings
from ainfinity.core.exceptions import NotFound, NotSupported
from ainfinity.schema.data import DatasetRow
from ainfinity.schema.event import EventType
from ainfinity.schema.machines import Gpus, Orphans
from ainfinity.schema.states import JOB_LIVE
from ainfinity.schema.views import JobDetail, JobQuery, JobRow, MetricPoint

if TYPE_CHECKING:
    from ainfinity.client.port import Client

_T = TypeVar("_T")


async def open_client(settings: Settings | None = None, *, start_workers: bool = True) -> Client:
    """Return the client that the settings ask for: embedded, on this machine's database.

    Errors:
        NotSupported: AINFINITY_SERVER is set. DatabaseNewer, DatabaseLocked, FolderUnwritable: see their messages.
    """
    settings = settings or load_settings()
    return await asyncio.to_thread(_open, settings, start_workers)


def _open(settings: Settings, start_workers: bool) -> Client:
    if settings.server:
        raise NotSupported(
            "AINFINITY_SERVER is set, and this version has no server yet.", hint="Unset it to work on this machine."
        )
    from ainfinity.client.local import LocalClient
    from ainfinity.core.redact import learn_environment
    from ainfinity.core.secrets import SecretStore
    from ainfinity.schema.actor import local_actor
    from ainfinity.store.store import open_store

    # What this process must neither store nor show, whichever front it is.
    learn_environment()
    SecretStore(settings.config_dir).learn_all()
    return LocalClient(open_store(settings), settings, local_actor(), start_workers=start_workers)


def connect(settings: Settings | None = None) -> Session:
    """Return a session for scripts and notebooks.

    ```python
    import ainfinity

    with ainfinity.connect() as session:
        job = session.launch("job.yaml", "lr=1e-4")
        done = session.wait(job.id)
        print(done.state, session.pull(job.id, "adapter", "out"))
    ```
    """
    return Session(settings)


class Session:
    """The client without `async`: each method waits for its answer. Use it as a context manager, or close it.

    Errors are `ainfinity.core.exceptions.AinfinityError`s, as everywhere.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        # A loop on its own thread works in notebooks too, where one is running already.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ainfinity-session", daemon=True)
        self._thread.start()
        try:
            self.client: Client = self._run(open_client(settings))
        except BaseException:
            self._stop()
            raise

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        answer = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return answer.result()
        except KeyboardInterrupt:
            answer.cancel()
            raise

    def launch(self, job_file: str | Path, *overrides: str, key: str = "") -> JobRow:
        """Launch a job file or ready recipe with `key=value` overrides. The same `key` twice is one job."""
        from ainfinity.schema.job_file import load

        return self._run(self.client.submit(load(str(job_file), overrides), key or secrets.token_hex(16)))

    def list(self, query: JobQuery | None = None) -> Sequence[JobRow]:
        """Return jobs, newest first, at most 50 unless the query says otherwise."""
        return self._run(self.client.list_jobs(query or JobQuery()))

    def get(self, job: str) -> JobDetail:
        """Return everything about one job, by name or id."""
        return self._run(self.client.get_job(job))

    def cancel(self, job: str) -> JobRow:
        """Wish a job ended."""
        return self._run(self.client.cancel(job))

    def retry(self, job: str, *, from_step: int | None = None) -> JobRow:
        """Queue a failed or cancelled job again."""
        return self._run(self.client.retry(job, from_step=from_step))

    def wait(self, job: str, timeout: float | None = None) -> JobRow:
        """Wait until a job is over and return it. Raises TimeoutError after `timeout` seconds."""
        return self._run(asyncio.wait_for(wait_until_over(self.client, job), timeout))

    def metrics(self, job: str, *, names: Sequence[str] = (), limit: int | None = None) -> Sequence[MetricPoint]:
        """Return what the trainer reported at each step."""
        return self._run(self.client.metrics(job, names=names, limit=limit))

    def logs(self, job: str, *, tail: int | None = None) -> Iterator[str]:
        """Yield the lines of a job's log as it stands, of its newest attempt."""
        chunk = self._run(self.client.logs(job, tail=tail))
        while chunk.lines:
            yield from chunk.lines
            chunk = self._run(self.client.logs(job, attempt=chunk.attempt, offset=chunk.offset))

    def pull(self, job: str, what: str, folder: str | Path) -> Sequence[str]:
        """Bring `adapter`, `model`, `merged`, `checkpoint[:STEP]` or `logs` to a folder and return the paths."""
        return self._run(self.client.pull(job, what, str(folder)))

    def extend(self, job: str, seconds: float) -> JobRow:
        """Move a running job's deadline."""
        return self._run(self.client.extend(job, seconds))

    def keep(self, job: str, seconds: float) -> JobRow:
        """Keep a job's machine for so many seconds from now, though the job may end before that."""
        return self._run(self.client.keep(job, seconds))

    def teardown(self, job: str) -> JobRow:
        """End a job's machine now, kept or not."""
        return self._run(self.client.teardown(job))

    def gpus(self, name: str = "", *, infra: str = "", refresh: bool = False) -> Gpus:
        """Return the accelerators that can be had, with the age of the answer."""
        return self._run(self.client.gpus(name, infra=infra, refresh=refresh))

    def orphans(self, *, refresh: bool = False) -> Orphans:
        """Return the machines of this installation that no live job owns."""
        return self._run(self.client.orphans(refresh=refresh))

    def add_data(self, file: str | Path, name: str = "") -> DatasetRow:
        """Keep a data file by its content; a job's `data` may name it then."""
        return self._run(self.client.data_add(str(file), name))

    def close(self) -> None:
        """Let go of the database. Jobs go on. Closing again does nothing."""
        if self._loop.is_closed():
            return
        self._run(self.client.close())
        self._stop()

    def _stop(self) -> None:
        self._run(self._loop.shutdown_asyncgens())
        self._run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def wait_until_over(client: Client, job: str) -> JobRow:
    """Return the job once it is over, watching the feed. Errors: NotFound, also if it is deleted meanwhile."""
    row = (await client.get_job(job)).job
    if row.state not in JOB_LIVE:
        return row
    # From the row's own event on, so that nothing falls between the two readings.
    async with aclosing(client.feed(row.seq)) as feed:
        async for item in feed:
            for changed in item.jobs:
                if changed.id == row.id and changed.state not in JOB_LIVE:
                    return changed
            if any(event.type == EventType.DELETED and event.job_id == row.id for event in item.events):
                raise NotFound(f"The job {row.name} was deleted.")
    return row

"""Workers between the client port and the app: they read, retry for ever, and post messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from textual.message import Message

from ainfinity.core.exceptions import NotFound
from tui.explain import explain
from tui.messages import Detailed, Fed, Gone, Happened, Listed, Logged, Measured, Opened, Trouble, WorkerSeen
from tui.page import LOSS

if TYPE_CHECKING:
    from ainfinity.client.port import Client

OpenClient = Callable[[], Awaitable["Client"]]
Post = Callable[[Message], object]

#: Seconds between tries while something does not answer: the first, and the longest.
FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 10.0
#: Seconds between two looks at the worker.
WORKER_PERIOD: Final = 5.0
#: The least time between two readings of a stream: a frame. What comes meanwhile comes together.
FRAME: Final = 1 / 60
#: The least time between two readings of a job's page.
READ_PERIOD: Final = 0.1
#: How many of its last lines a log begins with.
LOG_TAIL: Final = 2000
_EVENT_PAGE: Final = 1000


async def persist(source: str, post: Post, attempt: Callable[[], Awaitable[None]], prefix: str = "") -> None:
    """Run `attempt` until it ends by itself; what it raises is told as trouble and waited out, longer each time."""
    loop = asyncio.get_running_loop()
    wait = FIRST_WAIT
    while True:
        begun = loop.time()
        try:
            return await attempt()
        except Exception as error:  # noqa: BLE001  # shown to the user and tried again: a front must not die of it
            if loop.time() - begun > LONGEST_WAIT:
                wait = FIRST_WAIT
            post(Trouble(source, f"{prefix}{explain(error)} Trying again in {wait:.0f} s."))
        await asyncio.sleep(wait)
        wait = min(LONGEST_WAIT, wait * 2)


class Link:
    """Opens the client, keeps it, and turns what it yields about all jobs into messages."""

    def __init__(self, open_client: OpenClient, post: Post) -> None:
        self._open = open_client
        self._post = post
        self._client: Client | None = None
        self._place: tuple[int, int] | None = None

    async def run(self) -> None:
        """Follow the feed until cancelled."""
        while True:
            await persist("jobs", self._post, self._follow)
            await asyncio.sleep(FIRST_WAIT)

    async def watch_worker(self) -> None:
        """Look at the worker now and then until cancelled; the client must be open."""
        assert self._client is not None
        while True:
            try:
                self._post(WorkerSeen(await self._client.worker()))
                self._post(Trouble("worker"))
            except Exception as error:  # noqa: BLE001  # shown; the next look follows
                self._post(Trouble("worker", explain(error)))
            await asyncio.sleep(WORKER_PERIOD)

    async def relist(self) -> None:
        """Read all jobs: at the start, and when the user asks for it."""
        from ainfinity.schema.views import JobQuery

        assert self._client is not None
        rows = await self._client.list_jobs(JobQuery(limit=None))
        if self._place is None:
            self._place = (
                max((row.seq for row in rows), default=0),
                max((row.progress.rev for row in rows), default=0),
            )
        self._post(Listed(rows))
        self._post(Trouble("jobs"))

    async def _follow(self) -> None:
        if self._client is None:
            client = await self._open()
            self._client = client
            self._post(Opened(client))
        await self.relist()
        async with aclosing(self._client.feed(*(self._place or (None, None)))) as feed:
            async for item in feed:
                self._place = item.cursor, item.rev
                self._post(Fed(item))
                await asyncio.sleep(FRAME)

    async def close(self) -> None:
        """Close the client, if it was opened."""
        if self._client is not None:
            await self._client.close()


class JobLink:
    """Reads what the page of one job needs."""

    def __init__(self, client: Client, job: str, post: Post) -> None:
        self._client = client
        self._job = job
        self._post = post
        self._point: tuple[int, int] = (0, -1)
        self._seq = 0
        self._everything = False
        self._wake = asyncio.Event()

    def wake(self, *, everything: bool) -> None:
        """Ask for a reading: of everything, or of new metrics only."""
        self._everything |= everything
        self._wake.set()

    async def run(self) -> None:
        """Read whenever woken, until cancelled; post `Gone` if the job is no more. Calls that come together are one."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            everything, self._everything = self._everything, False
            await persist("job", self._post, self._read if everything else self._measure)
            await asyncio.sleep(READ_PERIOD)

    async def follow_log(self) -> None:
        """Follow the log until the job is over; start anew from its tail when the stream breaks."""
        await persist("log", self._post, self._follow_log, "The log cannot be read: ")

    async def _read(self) -> None:
        try:
            self._post(Detailed(await self._client.get_job(self._job)))
            while events := await self._client.events(self._job, after=self._seq, limit=_EVENT_PAGE):
                self._seq = events[-1].seq
                self._post(Happened(events))
            await self._measure()
        except NotFound:
            self._post(Gone(self._job))

    async def _measure(self) -> None:
        points = await self._client.metrics(self._job, names=(LOSS,), after=self._point)
        if points:
            self._point = points[-1].attempt, points[-1].step
            self._post(Measured(points))
        self._post(Trouble("job"))

    async def _follow_log(self) -> None:
        self._post(Logged(None))
        try:
            await self._client.logs(self._job, tail=1)  # a stream may say nothing for hours; this tells that it works
            self._post(Trouble("log"))
            async with aclosing(self._client.follow_logs(self._job, tail=LOG_TAIL)) as chunks:
                async for chunk in chunks:
                    self._post(Logged(chunk))
                    await asyncio.sleep(FRAME)
        except NotFound:
            self._post(Trouble("log"))  # `read` tells of it

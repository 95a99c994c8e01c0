"""A proxy between SkyPilot's client and its API server that does to requests what networks and servers do.

It forwards bytes and reads only the first line of each request, so that streams and websockets pass as they are. Each
request has a connection of its own.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

Kind = Literal["slow", "error", "lost", "refuse", "cut"]
_HEAD = b"\r\n\r\n"


@dataclass
class Fault:
    """What is done to the requests whose `METHOD /path` fits `pattern`, at most `times` times.

    slow: answered `amount` seconds late. error: answered with the status `amount`, and not passed on. lost: passed on,
    but the reply never arrives. refuse: the connection is closed at once. cut: closed after `amount` bytes of answer.
    """

    kind: Kind
    pattern: str = ""
    amount: float = 0
    times: float = float("inf")
    #: How often it happened.
    count: int = field(default=0, init=False)

    def meets(self, line: str) -> bool:
        """Whether it happens to this request; counts it if so."""
        happens = self.count < self.times and re.search(self.pattern, line) is not None
        self.count += happens
        return happens


class Proxy:
    """Listens on a port of its own from `with` on. `seen` holds the first line of every request, with its time."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self.faults: list[Fault] = []
        self.seen: list[tuple[float, str]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._open: set[asyncio.Task[None]] = set()

    @contextmanager
    def fault(self, kind: Kind, pattern: str = "", amount: float = 0, times: float = float("inf")) -> Iterator[Fault]:
        """Have a fault happen until the block ends."""
        made = Fault(kind, pattern, amount, times)
        self.faults.append(made)
        try:
            yield made
        finally:
            self.faults.remove(made)

    def count(self, pattern: str, since: float = 0.0) -> int:
        """How many requests fitted."""
        return sum(at >= since and re.search(pattern, line) is not None for at, line in list(self.seen))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                await self._pass(reader, writer)
        finally:
            self._open.discard(task)
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(_HEAD)
        line = head.split(b"\r\n", 1)[0].decode()
        self.seen.append((time.time(), line))
        fault = next((one for one in self.faults if one.meets(line)), None)
        kind = fault.kind if fault else ""
        amount = fault.amount if fault else 0.0
        if kind == "refuse":
            return
        if kind == "error":
            body = b'{"detail": "so the proxy says"}'
            writer.write(b"HTTP/1.1 %d Fault\r\nContent-Length: %d\r\n" % (int(amount), len(body)))
            writer.write(b"Content-Type: application/json\r\nConnection: close\r\n\r\n" + body)
            await writer.drain()
            return
        up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        try:
            up_writer.write(_alone(head))
            sending = asyncio.ensure_future(_pump(reader, up_writer))
            if kind == "slow":
                await asyncio.sleep(amount)
            if kind == "lost":
                await up_reader.read()
            else:
                await _pump(up_reader, writer, amount if kind == "cut" else None)
            sending.cancel()
        finally:
            up_writer.close()

    def __enter__(self) -> Self:
        self._thread.start()
        serving = asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(10)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async def end() -> None:
            self._server.close()
            open_ = list(self._open)
            for task in open_:
                task.cancel()
            await asyncio.gather(*open_, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


def _alone(head: bytes) -> bytes:
    """The head of a request after which the connection is closed, unless it is about to become a websocket."""
    if re.search(rb"(?i)\r\nupgrade:", head):
        return head
    bare = re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head)
    return bare.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, at_most: float | None = None) -> None:
    passed = 0
    while data := await reader.read(1 << 16):
        if at_most is not None:
            data = data[: max(0, int(at_most) - passed)]
            if not data:
                return
        writer.write(data)
        await writer.drain()
        passed += len(data)
    if at_most is None:
        with suppress(OSError, NotImplementedError):
            writer.write_eof()

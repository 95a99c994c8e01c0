"""The doorbell: "something changed, look again", from any process to all others on this machine.

Each listener owns a Unix datagram socket in a private folder that belongs to the database; ringing sends one byte to
every socket there. A bell carries no data and may be lost: whoever listens also looks every `POLL` seconds (on SQLite
`PRAGMA data_version` tells for microseconds whether anything changed).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import socket
import stat
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

#: Seconds after which a listener looks even when no bell was heard.
POLL: Final = 1.0

#: A socket's path ends at 104 bytes on macOS (108 on Linux), and a file name here has at most 24.
_LONGEST_FOLDER: Final = 78


class Bell(Protocol):
    """Tells others to look again."""

    def ring(self) -> None:
        """Ring. Never blocks, never fails."""
        ...


class NullBell:
    """Rings nowhere, for databases that other machines share; their listeners poll."""

    def ring(self) -> None:
        """Do nothing."""


def bell_folder(database: Path) -> Path:
    """Return the folder in which the listeners of this database have their sockets. It need not exist."""
    name = f"ainf-{os.getuid()}-{hashlib.sha256(os.fsencode(database.resolve())).hexdigest()[:8]}"
    folder = Path(tempfile.gettempdir()) / name
    return folder if len(os.fsencode(folder)) <= _LONGEST_FOLDER else Path("/tmp") / name  # noqa: S108  # checked below


def _is_private(folder: Path) -> bool:
    """Whether the folder is one that only we can have put there and only we can write to."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077


class SocketBell:
    """Rings every listener of one database. Threads may share it."""

    def __init__(self, database: Path) -> None:
        self._folder = bell_folder(database)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def ring(self) -> None:
        """Ring. A listener that has not yet answered the last rings needs no further one."""
        if not _is_private(self._folder):
            return
        try:
            names = os.listdir(self._folder)
        except OSError:
            return
        for name in names:
            if name.endswith(".sock"):
                self._ring_one(f"{self._folder}/{name}")

    def _ring_one(self, path: str) -> None:
        try:
            self._socket.sendto(b"!", path)
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:  # Its process is gone; names are never used again.
                with contextlib.suppress(OSError):
                    os.unlink(path)

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()


class Listener:
    """Hears the bell of one database. A context manager; any number of rings between two waits count as one.

    Where no socket can be made (a shared database, or somebody else's folder in our place) it only keeps time.
    """

    def __init__(self, database: Path | None) -> None:
        self._folder = None if database is None else bell_folder(database)
        self._socket: socket.socket | None = None
        self._path = ""
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Return what `select` can wait for; -1 where there is nothing to hear and only `POLL` is left."""
        return -1 if self._socket is None else self._socket.fileno()

    def wait(self, timeout: float = POLL) -> bool:
        """Wait up to `timeout` seconds; return whether it rang. Without a socket it waits `POLL` at the most."""
        if self._socket is None:
            time.sleep(min(timeout, POLL))
            return False
        self._socket.settimeout(timeout)
        try:
            self._socket.recv(1)
        except (TimeoutError, BlockingIOError):
            return self._heal()
        return self._answer()

    async def wait_async(self, timeout: float = POLL) -> bool:
        """Do as `wait` without blocking the event loop."""
        if self._socket is None:
            await asyncio.sleep(min(timeout, POLL))
            return False
        self._socket.setblocking(False)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.get_running_loop().sock_recv(self._socket, 1)
        except TimeoutError:
            return self._heal()
        return self._answer()

    def close(self) -> None:
        """Stop listening and take the socket away."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def _open(self) -> None:
        if self._folder is None:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700)
        if not _is_private(self._folder):
            return
        self._path = f"{self._folder}/{os.getpid()}-{os.urandom(4).hex()}.sock"
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            bound.bind(self._path)
        except OSError:
            bound.close()
        else:
            self._socket = bound

    def _answer(self) -> bool:
        """Take all rings that have come, so that they count as one."""
        assert self._socket is not None
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(1)
        return True

    def _heal(self) -> bool:
        """After a silence: make the socket anew if something cleaned the temporary folder; return that none rang."""
        if not os.path.exists(self._path):
            self.close()
            self._open()
        return False

"""An attempt's `log.txt` together with how far each source of it was read.

What was written and not yet accounted for when a worker died is compared with what is to be written next, so that
nothing is lost or doubled. One process writes at a time.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Any, Final, cast

from ainfinity.compute.folder import read_record, write_record
from ainfinity.compute.remote.logreader import Place
from ainfinity.compute.remote.rows import LogEnd

LOG: Final = "log.txt"
_PLACES: Final = "follow.json"
_LOCK: Final = "follow.lock"
#: More than this cannot be what a worker left unaccounted for; it is kept as it is.
_MOST_LEFT: Final = 64 << 20
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class Journal:
    """Open for writing, by one holder of the lock."""

    def __init__(self, folder: Path, lock: int) -> None:
        self._folder = folder
        self._lock = lock
        self._log = os.open(folder / LOG, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        record = read_record(folder / _PLACES) or {}
        self.places = _read_places(record)
        self.end = _read_end(record)
        self._size = int(record.get("size", 0))
        #: What lies in the file after what is accounted for.
        self._left = b""
        #: What the file has still to take.
        self._unwritten = memoryview(b"")
        self._look_after(os.fstat(self._log).st_size)

    @classmethod
    def open(cls, folder: Path) -> Journal | None:
        """Open the attempt's journal; None if another one is open, here or in another process. Errors: OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return cls(folder, lock)
        except BlockingIOError:
            os.close(lock)
            return None
        except BaseException:
            os.close(lock)
            raise

    def place(self, source: str) -> Place:
        """Return how far a source was read."""
        return self.places.setdefault(source, Place())

    def append(self, text: str) -> bool:
        """Write whole lines at the end; False while there is no room for all of them: `append("")` goes on.

        Errors:
            OSError: the file cannot be written, for another reason than a full disk.
        """
        data = bytes(self._unwritten) + text.encode(errors="replace")
        if self._left and data:
            data = self._skip_left(data)
        self._unwritten = memoryview(data)
        try:
            while self._unwritten:
                count = os.write(self._log, self._unwritten)
                self._unwritten, self._size = self._unwritten[count:], self._size + count
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            return False
        return True

    def save(self, end: LogEnd | None = None) -> bool:
        """Account for what was written; False if not all of it is, or there is no room. Errors: OSError."""
        if self._unwritten:
            return False
        self.end = end or self.end
        record: dict[str, Any] = {
            "size": self._size,
            "sources": {source: place.as_json() for source, place in self.places.items()},
            "end": None if self.end is None else [self.end.status, self.end.exit_code],
        }
        try:
            os.fdatasync(self._log)  # first: an account that outruns the file would be a gap
            write_record(self._folder / _PLACES, record)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            return False
        return True

    def close(self) -> None:
        """Let others write."""
        for descriptor in (self._log, self._lock):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _look_after(self, size: int) -> None:
        if size < self._size:  # the file was removed or cut: all of it is fetched again
            self.places, self.end, self._size = {}, None, size
        elif 0 < size - self._size <= _MOST_LEFT:
            self._left = os.pread(self._log, size - self._size, self._size)
        else:
            self._size = size

    def _skip_left(self, data: bytes) -> bytes:
        """Return what of the data is not in the file yet."""
        left = self._left
        common = min(len(left), len(data))
        if left[:common] == data[:common]:
            self._left, self._size = left[common:], self._size + common
            return data[common:]
        self._left, self._size = b"", self._size + len(left)
        return data if left.endswith(b"\n") else b"\n" + data


def read_end(folder: Path) -> LogEnd | None:
    """Return how an attempt's log ended, if it did, without holding the journal. Errors: OSError."""
    return _read_end(read_record(folder / _PLACES) or {})


def _read_places(record: dict[str, Any]) -> dict[str, Place]:
    try:
        sources = cast("dict[str, dict[str, Any]]", record.get("sources", {}))
        return {source: Place.from_json(place) for source, place in sources.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}


def _read_end(record: dict[str, Any]) -> LogEnd | None:
    match record.get("end"):
        case [str(status), int() | None as code]:
            return LogEnd(status, code)
        case _:
            return None


__all__ = ["LOG", "NO_ROOM", "Journal", "read_end"]

"""Reading the logs of attempts, from any place, by bytes.

A log is one file per attempt. Everything read is redacted once more: a trainer may print what it should not.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ainfinity.core.exceptions import NotFound
from ainfinity.core.redact import redact
from ainfinity.schema.states import ATTEMPT_TERMINAL
from ainfinity.schema.views import AttemptRow, LogChunk
from ainfinity.store import jobs
from ainfinity.store.store import Store

#: Bytes returned at most at once, and the size of the blocks in which a tail is looked for.
_MOST = 1 << 20
_BLOCK = 1 << 16
_LINE_END = re.compile(r"\r\n|\r|\n")


class LogService:
    """Logs of attempts under `folder`, each in `NAME/log.txt`."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.folder = folder

    def read(
        self, job: str, *, attempt: int | None = None, offset: int | None = None, tail: int | None = None
    ) -> LogChunk:
        """Return complete lines from `offset`, or the last `tail` lines; both unset means from the start.

        A job without attempts has an empty log; what is asked of a missing attempt is refused.

        Errors:
            NotFound: no such job or attempt.
        """
        row = self._attempt(job, attempt)
        if row is None:
            return LogChunk(0, (), 0, False)
        over = row.state in ATTEMPT_TERMINAL
        path = self.folder / row.name / "log.txt"
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                start = tail_offset(path, tail) if tail is not None else max(0, min(offset or 0, size))
                file.seek(start)
                data = file.read(_MOST)
        except FileNotFoundError:
            return LogChunk(row.number, (), 0, over)
        end = data.rfind(b"\n") + 1
        if end == 0 and (len(data) == _MOST or (over and start + len(data) == size)):
            end = len(data)  # a line without an end: too long for one piece, or the last of a log that is over
        lines = _split(redact(data[:end].decode(errors="replace")))
        if tail is not None:
            lines = lines[-tail:] if tail > 0 else []
        return LogChunk(row.number, lines, start + end, over and start + end >= size)

    def _attempt(self, job: str, number: int | None) -> AttemptRow | None:
        with self.store.read() as connection:
            rows = jobs.attempts(connection, jobs.resolve(connection, job))
        if number is None:
            return rows[-1] if rows else None
        for row in rows:
            if row.number == number:
                return row
        raise NotFound(f"{job} has no attempt {number}.", hint=f"It has {len(rows)}.", field="attempt")


def _split(text: str) -> list[str]:
    """Split at line feeds, and at the carriage returns of progress bars. JSON text may hold what splitlines() takes."""
    lines = _LINE_END.split(text)
    return lines if lines[-1] else lines[:-1]


def tail_offset(path: Path, lines: int) -> int:
    """Return the byte offset of the last `lines` lines of a file, reading it from its end."""
    if lines <= 0:
        return path.stat().st_size
    with path.open("rb") as file:
        at = size = file.seek(0, os.SEEK_END)
        missing = lines
        while at > 0:
            start = max(0, at - _BLOCK)
            file.seek(start)
            block = file.read(at - start)
            if at == size and block.endswith(b"\n"):
                block = block[:-1]  # the end of the last line begins no line after it
            found = block.count(b"\n")
            if found >= missing:
                place = len(block)
                for _ in range(missing):
                    place = block.rfind(b"\n", 0, place)
                return start + place + 1
            missing -= found
            at = start
    return 0

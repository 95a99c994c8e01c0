"""Reading an attempt's growing log: every line once, whole, and in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ainfinity.compute.port import Lines

#: Bytes read for one attempt in one call.
CHUNK = 1 << 20
#: Bytes of a line longer than a chunk that are kept.
KEPT = 64 << 10
#: How far the end of such a line is looked for in one call; a longer one comes in pieces.
SCANNED = 64 << 20


def read_lines(path: Path, offset: int, is_over: Callable[[], bool]) -> Lines:
    """Return the complete lines of `path` after byte `offset`, at most a chunk of them.

    A last line without an end is left for later, unless `is_over()` says that nobody will write the rest. Bytes that
    are no UTF-8 are replaced. A line longer than a chunk is cut and says so.

    Errors:
        OSError: the file is there and cannot be read.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return Lines((), offset)
    with file:
        file.seek(offset)
        chunk = file.read(CHUNK)
        end = chunk.rfind(b"\n") + 1
        if not end and chunk:
            return _read_unfinished(file, offset, chunk, is_over)
    return Lines(_split(chunk[:end]), offset + end)


def _read_unfinished(file: BinaryIO, offset: int, chunk: bytes, is_over: Callable[[], bool]) -> Lines:
    if len(chunk) < CHUNK:
        if not is_over():
            return Lines((), offset)
        # Asked before reading again: what was written in between belongs to this line or comes after it.
        file.seek(offset)
        chunk = file.read(CHUNK)
        end = chunk.rfind(b"\n") + 1 or len(chunk)
        return Lines(_split(chunk[:end]), offset + end)
    size = len(chunk)
    while size < SCANNED:
        more = file.read(CHUNK)
        found = more.find(b"\n")
        if found >= 0:
            return Lines((_cut(chunk, size + found),), offset + size + found + 1)
        size += len(more)
        if len(more) < CHUNK:
            if is_over():
                return Lines((_cut(chunk, size),), offset + size)
            return Lines((), offset)
    return Lines((_cut(chunk, size),), offset + size)


def _cut(start: bytes, size: int) -> str:
    return f"{start[:KEPT].decode(errors='replace')} … [cut: the line has {size} bytes]"


def _split(data: bytes) -> tuple[str, ...]:
    return tuple(data.decode(errors="replace").removesuffix("\n").split("\n")) if data else ()

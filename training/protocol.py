"""The trainer's stdout: one JSON object a line, which whoever watches a run reads back.

    {"ainfinity": 1, "seq": 7, "kind": "step", "at": 1760000000.25, "step": 3, "loss": 1.5, ...}

`seq` rises strictly over the life of an attempt, also over its restarts, so reading a log twice changes nothing.
A reader drops a line whose seq is not above the last one it took. Every other line on stdout or stderr is plain text.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, get_args

VERSION: Final = 1

Kind = Literal[
    "started", "step", "eval", "sample", "checkpoint", "warning", "stopped", "finished", "verified", "failed"
]
KINDS: Final[frozenset[str]] = frozenset(get_args(Kind))

SEQ_BITS: Final = 32  # a restart of an attempt starts at restarts << SEQ_BITS
_ENVELOPE: Final = ("ainfinity", "seq", "kind", "at")
_MAX_SEQ: Final = 2**63 - 1  # what a database column holds
_MAX_DEPTH: Final = 32  # what lies deeper is dropped, so that no line exhausts its reader's stack


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the protocol. `at` is unix time in seconds; `data` holds the fields of its kind."""

    seq: int
    kind: str
    at: float
    data: dict[str, Any]


class Emitter:
    """Writes protocol lines to a file descriptor, each with one unbuffered write, numbered from `base + 1`."""

    def __init__(self, fd: int = 1, base: int = 0, clock: Callable[[], float] = time.time) -> None:
        self._fd = fd
        self._seq = base
        self._clock = clock

    def emit(self, kind: str, /, **data: Any) -> None:
        """Write one line; NaN and infinities become null, lone surrogates U+FFFD. A reserved field is a ValueError."""
        if reserved := [name for name in _ENVELOPE if name in data]:
            raise ValueError(f"{reserved[0]} belongs to the envelope of a line and cannot be one of its fields")
        self._seq += 1
        envelope = {"ainfinity": VERSION, "seq": self._seq, "kind": kind, "at": self._clock()}
        line = json.dumps(_clean(envelope | data), allow_nan=False, separators=(",", ":"))
        # ASCII only, so neither a control character nor a Unicode line separator in a value can end or forge a line.
        rest = memoryview(line.encode("ascii") + b"\n")
        while rest:  # a full pipe takes only a part
            rest = rest[os.write(self._fd, rest) :]


def parse_line(text: str) -> Line | None:
    """The protocol line in `text`; None for plain log text and for a line of another version.

    A kind that this reader does not know is passed through, so that a newer trainer does not break an older reader.
    """
    text = text.strip()
    if not (text.startswith("{") and '"ainfinity"' in text):
        return None
    try:
        decoded: object = json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    if not isinstance(decoded, dict):
        return None
    data = cast("dict[str, Any]", decoded)
    version, seq, kind, at = (data.pop(name, None) for name in _ENVELOPE)
    if type(version) is not int or version != VERSION:
        return None
    if type(seq) is not int or not 0 <= seq <= _MAX_SEQ or not isinstance(kind, str) or not kind:
        return None
    if isinstance(at, bool) or not isinstance(at, (int, float)) or abs(at) > _MAX_SEQ:
        return None
    return Line(seq=seq, kind=kind, at=float(at), data=cast("dict[str, Any]", _clean(data)))


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _clean(value: Any, depth: int = 0) -> Any:
    """Plain JSON types only, without what JSON or UTF-8 cannot carry."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    if depth == _MAX_DEPTH:
        return None
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {_clean(str(key)): _clean(item, depth + 1) for key, item in items}
    if isinstance(value, (list, tuple)):
        return [_clean(item, depth + 1) for item in cast("list[Any]", value)]
    return str(value)

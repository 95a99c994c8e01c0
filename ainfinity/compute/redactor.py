"""Hides secrets in an attempt's output on its way into the log: `python -m ainfinity.compute.redactor`.

It stands between an attempt that has secrets and its log. A process of its own and not a thread of the supervisor, so
that output goes on when the supervisor dies. It ends when the last writer has closed its end, and by nothing milder
than SIGKILL, because what it holds back would be lost.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

from ainfinity.core.redact import learn, learn_environment, redact

#: Names, separated by commas, of the variables whose values are to be hidden.
SECRET_NAMES = "AINFINITY_SECRET_NAMES"  # noqa: S105  # the name of a variable

_READ = 1 << 16
#: A line without an end is passed on in pieces; what is kept of it for the next piece is longer than any secret.
_LONGEST_LINE, _KEPT = 1 << 20, 1 << 14


def pieces(source: int) -> Iterator[bytes]:
    """Yield what comes from a file descriptor, cut only at ends of lines, until all its writers are gone."""
    held = b""
    while data := os.read(source, _READ):
        held += data
        # Progress bars end their lines with a carriage return.
        end = max(held.rfind(b"\n"), held.rfind(b"\r")) + 1
        if end == 0 and len(held) > _LONGEST_LINE:
            end = len(held) - _KEPT
        if end:
            yield held[:end]
            held = held[end:]
    if held:
        yield held


def hide(data: bytes) -> bytes:
    """Return output without secrets; bytes that are not UTF-8 stay as they are."""
    return redact(data.decode(errors="surrogateescape")).encode(errors="surrogateescape")


def main() -> int:
    """Copy standard input to standard output."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    learn_environment()
    names = os.environ.get(SECRET_NAMES, "").split(",")
    learn(os.environ[name] for name in names if name in os.environ)
    for data in pieces(0):
        rest = memoryview(hide(data))
        while rest:
            rest = rest[os.write(1, rest) :]
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""What the command line writes: data on stdout, talk on stderr, and numbers and times as people read them."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Final, cast

from ainfinity.core.redact import redact

_COLOURS: Final = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "grey": "90", "bold": "1"}
STATE_COLOURS: Final = {
    "running": "blue",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "grey",
    "rejected": "grey",
    "recovering": "yellow",
    "awaiting_approval": "yellow",
    "cancelling": "yellow",
}
#: Control characters would let a log line or a note drive the reader's terminal; tabs and newlines may stay.
_CONTROLS: Final = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "�")


def write(text: str = "") -> None:
    """Write a line of data to stdout."""
    sys.stdout.write(f"{text}\n")


def say(text: str) -> None:
    """Write a line of talk to stderr."""
    sys.stderr.write(f"{redact(text)}\n")
    sys.stderr.flush()


def write_json(value: Any) -> None:
    """Write one JSON document, on one line: readable to programs, and to people through `jq`."""
    write(json.dumps(plain(value), ensure_ascii=False, allow_nan=False))
    sys.stdout.flush()


def plain(value: Any) -> Any:
    """Return `value` as JSON types: dataclasses become objects, numbers that are not finite become null."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in cast("Iterable[Any]", value)]
    return str(value)


def harmless(text: str) -> str:
    """Return `text` without characters that a terminal would act upon."""
    return text.translate(_CONTROLS)


def interactive() -> bool:
    """Whether a person can be asked: both ends are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def colour(text: str, name: str, stream: Any = None) -> str:
    """Return `text` in a colour if `stream` (stdout) is a terminal that wants any."""
    stream = stream or sys.stdout
    if not name or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m"


def width() -> int | None:
    """Return the terminal's width in columns, or None where stdout is none and lines may be of any length."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def write_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Iterable[int] = (), state: int = -1
) -> None:
    """Write rows under a head. The last column gives way on a narrow terminal; column `state` is coloured."""
    cells = [[harmless(cell).replace("\n", " ").replace("\t", " ") for cell in row] for row in [head, *rows]]
    widths = [max(len(row[index]) for row in cells) for index in range(len(head))]
    right = set(right)
    limit = width()
    for number, row in enumerate(cells):
        last = len(row) - 1
        parts = [
            cell.rjust(size) if index in right else cell if index == last else cell.ljust(size)
            for index, (cell, size) in enumerate(zip(row, widths, strict=True))
        ]
        if limit is not None:
            used = sum(len(part) + 2 for part in parts[:-1])
            parts[-1] = shorten(parts[-1], max(limit - used, 4))
        if number == 0:
            parts = [colour(part, "bold") for part in parts]
        elif state >= 0:
            parts[state] = colour(parts[state], STATE_COLOURS.get(row[state].split()[0] if row[state] else "", ""))
        write("  ".join(parts).rstrip())


def write_csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows as CSV with a head; None is an empty cell."""
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)


def shorten(text: str, limit: int) -> str:
    """Return `text` cut to `limit` characters, the cut shown."""
    return text if len(text) <= limit else f"{text[: max(limit - 1, 0)]}…"


def duration(seconds: float | None) -> str:
    """Return seconds as `45s`, `3m20s`, `2h05m` or `3d04h`."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def moment(at: float | None) -> str:
    """Return a time of the machine's own zone, to the second."""
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def number(value: float | None, form: str = ".4g") -> str:
    """Return a number, or `-` for none."""
    return "-" if value is None or not math.isfinite(value) else format(value, form)


def money(dollars: float | None) -> str:
    """Return dollars as `$3.07`, nothing as `free`, and what is unknown as `unknown`: never as nothing."""
    if dollars is None or not math.isfinite(dollars):
        return "unknown"
    if dollars == 0:
        return "free"
    if dollars < 0.001:
        return "<$0.001"
    return f"${dollars:,.2f}" if dollars >= 0.1 else f"${dollars:.2g}"


def cost_so_far(dollars: float | None, price_per_hour: float | None) -> str:
    """Return what was spent; `-` while nothing was, `free` where nothing will be."""
    return "-" if dollars == 0 and price_per_hour != 0 else money(dollars)


def per_hour(dollars: float | None) -> str:
    """Return a price as `$3.07/h`, `free` or `unknown`."""
    text = money(dollars)
    return f"{text}/h" if "$" in text else text


def size(count: float) -> str:
    """Return bytes as `512 B`, `3.2 MB` or `1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def age(at: float) -> str:
    """Return how old an answer is, for people."""
    seconds = time.time() - at
    return "just now" if seconds < 2 else f"{duration(seconds)} ago"

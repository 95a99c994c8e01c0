"""Numbers and times as people read them. All pure; None and what is no finite number becomes a dash."""

from __future__ import annotations

import math
from typing import Any, Final

DASH: Final = "–"
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400


def finite(value: Any) -> float | None:
    """Return `value` as a float where it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def age(seconds: float | None) -> str:
    """`42s`, `12m`, `5h`, `3d`, `2y`: at most 4 cells."""
    number = finite(seconds)
    if number is None:
        return DASH
    whole = max(0, int(number))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m"
    if whole < 2 * _DAY:
        return f"{whole // _HOUR}h"
    days = whole // _DAY
    return f"{days}d" if days < 1000 else f"{min(days // 365, 999)}y"


def duration(seconds: float | None) -> str:
    """`42s`, `4m05s`, `2h05m`, `3d04h`: at most 6 cells up to 99 days."""
    number = finite(seconds)
    if number is None:
        return DASH
    whole = max(0, int(number))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02}m"
    return f"{min(whole // _DAY, 9999)}d{whole % _DAY // _HOUR:02}h"


def loss(value: Any) -> str:
    """At most 7 cells: `12.34`, `2.655`, `0.910`, `0.0123`, `1.2e-05`."""
    number = finite(value)
    if number is None:
        return DASH
    if number == 0:
        return "0"
    size = abs(number)
    if size >= 10_000 or size < 0.001:
        text = f"{number:.1e}"
        return text if len(text) <= 7 else f"{number:.0e}"
    digits = (3 if size >= 1 else 2) - math.floor(math.log10(size))
    return f"{number:.{max(digits, 0)}f}"


def signed(value: Any) -> str:
    """A change with its sign: `−0.658`."""
    number = finite(value)
    if number is None:
        return DASH
    return ("−" if number < 0 else "+") + loss(abs(number))


def rate(value: Any) -> str:
    """A rate or count in at most 5 cells: `9.5`, `160`, `12.3k`, `4.1M`."""
    number = finite(value)
    if number is None:
        return DASH
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.1f}{unit}" if abs(number) < 100 * size else f"{number / size:.0f}{unit}"
    return f"{number:.1f}" if abs(number) < 10 and number != int(number) else f"{number:.0f}"


def size(count: Any) -> str:
    """Bytes: `812 B`, `9.4 MiB`."""
    number = finite(count)
    if number is None or number < 0:
        return DASH
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def count(number: int) -> str:
    """A whole number with separators: `10,000`."""
    return f"{number:,}"


def plural(number: int, word: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def money(dollars: Any) -> str:
    """Dollars in at most 7 cells: `$3.07`, `$412`, `$12.3k`, `free`; what nobody told is `unknown`, never nothing."""
    number = finite(dollars)
    if number is None:
        return "unknown"
    if number == 0:
        return "free"
    if number < 0.1:
        return f"${number:.2g}" if number >= 0.001 else "<$0.001"
    return f"${number:.2f}" if number < 100 else f"${rate(number)}"


def price(dollars: Any) -> str:
    """A price in at most 9 cells: `$3.07/h`, `free`, `unknown`."""
    text = money(dollars)
    return f"{text}/h" if "$" in text else text


def fraction(step: int, total: int) -> float:
    """How much of the steps is done, from 0 to 1."""
    return min(1.0, max(0.0, step / total)) if total > 0 else 0.0


def percent(part: float) -> str:
    """A fraction as `64%`; 100% only when all is done."""
    return f"{min(int(part * 100), 99) if part < 1 else 100}%"


def bar(part: float, cells: int) -> tuple[str, str]:
    """Return a progress bar in eighths of a cell: its full and its empty run, `cells` cells together."""
    eighths = int(min(1.0, max(0.0, part)) * cells * 8)
    full, rest = divmod(eighths, 8)
    filled = "█" * full + (_EIGHTHS[rest] if rest else "")
    return filled, "░" * (cells - len(filled))

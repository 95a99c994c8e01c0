"""Numbers out of data that may hold anything."""

from __future__ import annotations

from typing import Any


def whole(value: Any) -> int | None:
    """Return a whole number as it is, and None for all else: a trainer's line can hold anything."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def number(value: Any) -> float | None:
    """Return a number as it is, and None for all else."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None

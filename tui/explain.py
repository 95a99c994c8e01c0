"""Errors in words."""

from __future__ import annotations

from ainfinity.core.exceptions import AinfinityError
from tui.text import clean


def explain(error: Exception) -> str:
    """Return an error as one line for people: what is wrong and what to do next."""
    if isinstance(error, AinfinityError):
        return clean(str(error))
    return clean(f"{type(error).__name__}: {error}".rstrip(": "))

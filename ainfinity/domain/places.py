"""Which backend an infrastructure belongs to."""

from __future__ import annotations

from typing import Final

#: Infrastructures that are backends of their own; SkyPilot has all the others.
_OWN: Final = frozenset({"local", "fake"})


def backend_of(infra: str) -> str:
    """Return the name of the backend that runs an infrastructure: `local`, `fake` in tests, else `skypilot`."""
    return infra if infra in _OWN else "skypilot"

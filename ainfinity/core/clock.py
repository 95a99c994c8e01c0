"""Time as a dependency, so that tests and the simulation own it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where the engine and the services get the time from."""

    def now(self) -> float:
        """Return Unix seconds."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Return Unix seconds."""
        return time.time()

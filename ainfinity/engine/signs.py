"""When each attempt last gave a sign, as far as this worker saw: new output, another phase, another machine."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


class Signs:
    """What one worker remembers of one backend's attempts while there is contact."""

    def __init__(self) -> None:
        #: By name: the mark as seen last, since when it is watched, and when it last changed.
        self._seen: dict[str, tuple[Any, float, float | None]] = {}

    def look(self, name: str, mark: Any, now: float) -> tuple[float | None, float]:
        """Take in the mark of an attempt, which every sign changes; return its last sign and since when it is watched.

        The first look is no sign: how long before that the mark was the same is not known.
        """
        known = self._seen.get(name)
        if known is None:
            self._seen[name] = (mark, now, None)
            return None, now
        old, since, last = known
        if mark != old:
            last = now
            self._seen[name] = (mark, since, last)
        return last, since

    def keep(self, names: Collection[str]) -> None:
        """Forget all attempts but these."""
        if len(self._seen) > len(names):
            self._seen = {name: seen for name, seen in self._seen.items() if name in names}

    def lose(self) -> None:
        """Watch anew: there was no contact, and signs may have been missed."""
        self._seen.clear()

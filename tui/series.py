"""A curve of any length that can be summarised quickly. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from tui.format import finite

#: Points under one stored minimum and maximum.
_BLOCK: Final = 64


class Series:
    """Points with rising x. A point at or before the last x replaces what lies after it: a resumed run's steps count.

    `version` rises with every change; `holes` counts points whose y was no finite number, which are left out.
    """

    def __init__(self, points: Iterable[tuple[float, object]] = ()) -> None:
        self.xs: list[float] = []
        self.ys: list[float] = []
        self.holes = 0
        self.version = 0
        self._lows: list[float] = []
        self._highs: list[float] = []
        self.extend(points)

    def __len__(self) -> int:
        return len(self.xs)

    def extend(self, points: Iterable[tuple[float, object]]) -> None:
        """Append points."""
        for x, value in points:
            y = finite(value)
            if self.xs and x <= self.xs[-1]:
                self._cut(bisect_left(self.xs, x))
            if y is None:
                self.holes += 1
                continue
            self.xs.append(x)
            self.ys.append(y)
            if len(self.ys) % _BLOCK == 0:
                block = self.ys[-_BLOCK:]
                self._lows.append(min(block))
                self._highs.append(max(block))
        self.version += 1

    def extent(self, start: int = 0, end: int | None = None) -> tuple[float, float]:
        """Return the smallest and the largest y of the points from `start` to before `end`; there must be one."""
        end = len(self.ys) if end is None else end
        first, last = -(-start // _BLOCK), end // _BLOCK
        if last <= first:
            part = self.ys[start:end]
            return min(part), max(part)
        edges = self.ys[start : first * _BLOCK] + self.ys[last * _BLOCK : end]
        return min(self._lows[first:last] + edges), max(self._highs[first:last] + edges)

    def _cut(self, length: int) -> None:
        del self.xs[length:], self.ys[length:]
        del self._lows[length // _BLOCK :], self._highs[length // _BLOCK :]

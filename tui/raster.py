"""Curves as braille: two dots across and four down in a cell. Pure; the time depends on the box, not on the points."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Final

from tui.series import Series

#: Bit of the dot at (column, row) of a cell.
_DOTS: Final = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
#: Bits of the dots from one row of a cell to another, for its left and its right column.
_RUNS: Final = tuple(
    tuple(tuple(sum(bits[first : last + 1]) for last in range(4)) for first in range(4)) for bits in _DOTS
)
_BLANK: Final = 0x2800


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the plane that a chart shows: left, right, bottom, top. An axis without extent shows its middle."""

    x0: float
    x1: float
    y0: float
    y1: float

    def across(self, x: float, dots: int) -> int:
        """Column of dots, from 0 to `dots` - 1."""
        return _place(x, self.x0, self.x1, dots)

    def down(self, y: float, dots: int) -> int:
        """Row of dots, from 0 at the top to `dots` - 1."""
        return dots - 1 - _place(y, self.y0, self.y1, dots)


def _place(value: float, low: float, high: float, dots: int) -> int:
    span = high - low
    # Halves keep the difference of two huge numbers finite.
    part = (value / 2 - low / 2) / (high / 2 - low / 2) if span > 0 else 0.5
    return min(dots - 1, max(0, round(part * (dots - 1))))


def rasterise(series: Series, window: Window, columns: int, rows: int) -> list[str]:
    """Draw a curve into `rows` strings of `columns` cells. Each column of dots spans what its points span."""
    if columns <= 0 or rows <= 0:
        return []
    cells = [bytearray(columns) for _ in range(rows)]
    spans = _spans(series, window, columns * 2, rows * 4)
    for x, (top, bottom) in enumerate(spans):
        if top < 0:
            continue
        column, runs = x >> 1, _RUNS[x & 1]
        first, last = top >> 2, bottom >> 2
        for y in range(first, last + 1):
            cells[y][column] |= runs[top & 3 if y == first else 0][bottom & 3 if y == last else 3]
    return ["".join(chr(_BLANK + bits) if bits else " " for bits in row) for row in cells]


def _spans(series: Series, window: Window, width: int, height: int) -> list[tuple[int, int]]:
    """For each column of dots the topmost and lowest row to light, (-1, -1) where there is nothing."""
    spans = [(-1, -1)] * width
    start = bisect_left(series.xs, window.x0)
    end = bisect_right(series.xs, window.x1)
    previous: tuple[int, int] | None = None  # column, row of the last point drawn
    while start < end:
        x = window.across(series.xs[start], width)
        stop = _column_end(series, window, x, width, start, end)
        low, high = series.extent(start, stop)
        top, bottom = window.down(high, height), window.down(low, height)
        entry = window.down(series.ys[start], height)
        if previous is not None:
            _join(spans, previous, (x, entry))
        _widen(spans, x, top, bottom)
        previous = x, window.down(series.ys[stop - 1], height)
        start = stop
    return spans


def _column_end(series: Series, window: Window, x: int, width: int, start: int, end: int) -> int:
    """Return the index after the last point that falls into column `x`; the point at `start` does."""
    if x >= width - 1:
        return end
    border = window.x0 + (window.x1 - window.x0) * ((x + 0.5) / (width - 1))
    return bisect_left(series.xs, border, start + 1, end)


def _join(spans: list[tuple[int, int]], begin: tuple[int, int], finish: tuple[int, int]) -> None:
    """Light a line from one dot to another, without a gap."""
    (x0, y0), (x1, y1) = begin, finish
    last = y0
    for x in range(x0, x1 + 1):
        y = round(y0 + (y1 - y0) * (x - x0) / (x1 - x0)) if x1 > x0 else y1
        step = last if y == last else last + (1 if y > last else -1)
        _widen(spans, x, min(step, y), max(step, y))
        last = y


def _widen(spans: list[tuple[int, int]], x: int, top: int, bottom: int) -> None:
    old_top, old_bottom = spans[x]
    spans[x] = (top, bottom) if old_top < 0 else (min(old_top, top), max(old_bottom, bottom))

"""The loss chart: a curve in braille with its axes, and held-out losses as marks on it."""

from __future__ import annotations

import math

from textual.strip import Strip

from tui import format as fmt
from tui.raster import Window, rasterise
from tui.series import Series
from tui.text import Line, fit
from tui.widgets.toned import Toned

#: The mark of a held-out loss.
MARK = "◆"
_LABEL = 7
_NARROWEST_WITH_AXIS = 24


class Chart(Toned, can_focus=True):
    """One curve, marks, axes. Drawn anew only when a point came or the size is another."""

    def __init__(self, series: Series, marks: Series, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._series = series
        self._marks = marks
        self._empty = ""
        self._drawn: tuple[tuple[int, int, int, int, str], list[Line]] | None = None

    def update(self, empty: str) -> None:
        """Draw again if something is new; `empty` is said while there is no point."""
        self._empty = empty
        if self._drawn is None or self._drawn[0] != self._version():
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """Return a row of the screen."""
        version = self._version()
        if self._drawn is None or self._drawn[0] != version:
            self._drawn = version, draw(self._series, self._marks, self.size.width, self.size.height, self._empty)
        lines = self._drawn[1]
        return self.strip(lines[y] if y < len(lines) else [], self.size.width)

    def _version(self) -> tuple[int, int, int, int, str]:
        return self._series.version, self._marks.version, self.size.width, self.size.height, self._empty


def draw(series: Series, marks: Series, cells: int, rows: int, empty: str = "") -> list[Line]:
    """Return a chart of `rows` lines of `cells` cells. Pure. The largest and the smallest value label the axis."""
    if cells <= 0 or rows <= 0:
        return []
    curves = [curve for curve in (series, marks) if len(curve)]
    if not curves:
        return _message(empty, cells, rows)
    label = _LABEL if cells >= _NARROWEST_WITH_AXIS else 0
    axis = 1 if rows >= 3 else 0
    columns, height = cells - label - (1 if label else 0), rows - axis
    extents = [curve.extent() for curve in curves]
    window = Window(
        min(curve.xs[0] for curve in curves),
        max(curve.xs[-1] for curve in curves),
        min(low for low, _ in extents),
        max(high for _, high in extents),
    )
    curve = rasterise(series, window, columns, height)
    body = [_with_marks(row, y, marks, window, columns, height) for y, row in enumerate(curve)]
    if label:
        body = [[*_y_label(y, height, window, label), *line] for y, line in enumerate(body)]
    return [*body, _x_axis(window, columns, label)] if axis else body


def _message(text: str, cells: int, rows: int) -> list[Line]:
    line: Line = [(fit(text.center(cells), cells), "dim")]
    return [line if y == (rows - 1) // 2 else [] for y in range(rows)]


def _with_marks(row: str, y: int, marks: Series, window: Window, columns: int, height: int) -> Line:
    line: Line = []
    done = 0
    for x, value in zip(marks.xs, marks.ys, strict=True):
        column = window.across(x, columns * 2) >> 1
        if window.down(value, height * 4) >> 2 == y and column >= done:
            line += [(row[done:column], "live"), (MARK, "accent")]
            done = column + 1
    return [*line, (row[done:], "live")]


def _y_label(y: int, height: int, window: Window, cells: int) -> Line:
    if window.y1 <= window.y0:
        value = window.y0 if y == window.down(window.y0, height * 4) >> 2 else None
    elif y == 0 or height == 1:
        value = window.y1
    elif y == height - 1:
        value = window.y0
    elif height >= 5 and y == height // 2:
        value = window.y1 + (window.y0 - window.y1) * y / (height - 1)
    else:
        value = None
    if value is None:
        return [(" " * cells, "dim"), ("│", "track")]
    return [(fit(fmt.loss(value), cells, right=True), "dim"), ("┤", "track")]


def _x_axis(window: Window, columns: int, label: int) -> Line:
    left, right = f"{window.x0:.0f}", f"{window.x1:.0f}"
    middle = ""
    if columns >= 60 and window.x1 - window.x0 >= 4 and math.isfinite(window.x1):
        middle = f"{(window.x0 + window.x1) / 2:.0f}"
    text = f"step {left}"
    if right != left:
        space = columns - len(text) - len(right)
        text += (middle.center(space) if middle else " " * space) + right
    return [(" " * (label + 1 if label else 0), "dim"), (fit(text, columns), "dim")]

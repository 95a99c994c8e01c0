"""Panes of ready lines: events, which follow their end, and details, which are made for the width that there is."""

from __future__ import annotations

from collections.abc import Callable

from tui.text import Line
from tui.widgets.lines_view import LinesView


class TextPane(LinesView[Line]):
    """Toned lines."""

    def line_of(self, line: Line) -> Line:
        """Return the line itself."""
        return line

    def show(self, lines: list[Line]) -> None:
        """Show these lines, staying where one is."""
        if lines == self.lines:
            return
        self.lines[:] = lines
        self._drawn.clear()
        self._resize_content()
        self.refresh()


class WrappedPane(TextPane):
    """Lines made by a function of the width; made again when that changes."""

    def __init__(self, make: Callable[[int], list[Line]], *, id: str | None = None) -> None:
        super().__init__(id=id, follow=False)
        self._make = make

    def update(self) -> None:
        """Show what the function says now."""
        if self.cells > 0:
            self.show(self._make(self.cells))

    def on_resize(self) -> None:
        """Fit the new width."""
        super().on_resize()
        self.update()

"""Panes of ready lines: events, which follow their end, and details, which do not."""

from __future__ import annotations

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

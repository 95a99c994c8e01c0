"""A few centred lines where there is nothing to list: why that is so, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

from textual.strip import Strip

from tui.text import Line, line_width
from tui.widgets.toned import Toned


class EmptyState(Toned):
    """Centred lines."""

    DEFAULT_CSS = "EmptyState { height: 1fr; }"

    def __init__(self) -> None:
        super().__init__()
        self._lines: Sequence[Line] = ()

    def show(self, lines: Sequence[Line]) -> None:
        """Show these lines."""
        if lines != self._lines:
            self._lines = lines
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """Return a row of the screen."""
        cells = self.size.width
        index = y - max(0, (self.size.height - len(self._lines)) // 2)
        line = self._lines[index] if 0 <= index < len(self._lines) else []
        indent = max(0, (cells - max((line_width(each) for each in self._lines), default=0)) // 2)
        return self.strip([(" " * indent, "text"), *line], cells)

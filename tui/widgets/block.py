"""A few rows that its owner sets; as high as they are many."""

from __future__ import annotations

from collections.abc import Sequence

from textual.strip import Strip

from tui.text import Line
from tui.widgets.toned import Toned


class LineBlock(Toned):
    """Lines from the top; only those that are new are repainted."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: Sequence[Line] = ()
        self.styles.height = 1

    @property
    def lines(self) -> Sequence[Line]:
        """What is shown."""
        return self._lines

    def show(self, lines: Sequence[Line]) -> None:
        """Show these lines."""
        if lines == self._lines:
            return
        if len(lines) != len(self._lines):
            self.styles.height = max(1, len(lines))
        self._lines = lines
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Return a row of the screen."""
        return self.strip(self._lines[y] if y < len(self._lines) else [], self.size.width)

"""The log pane."""

from __future__ import annotations

from collections.abc import Iterable

from tui.log_lines import LogLine, keep, log_line
from tui.text import Line
from tui.widgets.lines_view import LinesView


class LogView(LinesView[LogLine]):
    """Log lines; nothing in them can reach the terminal but printable text."""

    def write(self, lines: Iterable[str]) -> None:
        """Append lines as they were read."""
        self.extend(keep(line) for line in lines)

    def line_of(self, line: LogLine) -> Line:
        """Return a line as it is drawn."""
        return log_line(line)

"""The base of all our widgets: lines of (text, tone) become strips.

Tones are component classes of the screen (see app.tcss), so that they are worked out once and not for every widget.
"""

from __future__ import annotations

from typing import Final

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from tui.text import Line

TONES: Final = ("text", "dim", "bold", "live", "good", "warn", "bad", "accent", "key", "track")
#: The component classes that a screen with toned widgets must have.
TONE_CLASSES: Final = frozenset({*(f"tone--{tone}" for tone in TONES), "row--cursor", "row--head"})


class Toned(Widget):
    """A widget that draws toned lines, on a screen that has the tones."""

    ALLOW_SELECT = False

    def notify_style_update(self) -> None:
        """Forget the styles of the theme before."""
        self._tones: dict[tuple[str, str], Style] = {}
        super().notify_style_update()

    def tone(self, tone: str, row: str = "") -> Style:
        """Return the style of a tone on this widget's background, or on that of a kind of row."""
        styles = self._tones
        style = styles.get((tone, row))
        if style is None:
            cursor = row == "cursor"
            # What is faint on the plain background is hard to read on the cursor's.
            shown = "text" if cursor and tone == "dim" else tone
            front = self.screen.get_component_rich_style(f"tone--{shown}")
            back = self.screen.get_component_rich_style(f"row--{row}") if row else self.rich_style
            style = front + Style(bgcolor=back.bgcolor, bold=True if cursor else None)
            styles[tone, row] = style
        return style

    @property
    def cells(self) -> int:
        """The width that can be drawn on: without border and scrollbar."""
        return self.scrollable_content_region.width

    @property
    def rows(self) -> int:
        """The height that can be drawn on."""
        return self.scrollable_content_region.height

    def strip(self, line: Line, cells: int, row: str = "") -> Strip:
        """Return a line as a strip of exactly `cells` cells."""
        strip = Strip([Segment(text, self.tone(tone, row)) for text, tone in line if text])
        return strip.adjust_cell_length(cells, self.tone("text", row))


class LineBar(Toned):
    """One row that shows a line which its owner sets; repainted only when that is another one."""

    def __init__(self, line: Line | None = None, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._line: Line = line or []

    @property
    def line(self) -> Line:
        """What is shown."""
        return self._line

    def show(self, line: Line) -> None:
        """Show a line."""
        if line != self._line:
            self._line = line
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """Return the row."""
        return self.strip(self._line if y == 0 else [], self.size.width)

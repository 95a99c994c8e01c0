"""A pane of many lines: a bounded ring that is drawn only where it is looked at, and that can follow its end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final, Generic, TypeVar

from textual.binding import BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.text import Line, line_width
from tui.widgets.toned import Toned

T = TypeVar("T")

#: Lines kept, and how many more gather before the oldest are let go together.
MOST_LINES: Final = 20_000
_SLACK: Final = 1_000
_SIDE_STEP: Final = 8


class LinesView(Toned, ScrollView, Generic[T], can_focus=True):
    """Lines of `T`, each drawn by `line_of` when it is first seen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("up,k", "go(-1)", "Up"),
        ("down,j", "go(1)", "Down"),
        ("pageup,ctrl+b", "page(-1)", "Page up"),
        ("pagedown,ctrl+f,space", "page(1)", "Page down"),
        ("home,g", "top", "Top"),
        ("end,G", "follow(True)", "End"),
        ("f", "toggle_follow", "Follow"),
        ("left,h", "side(-1)", "Left"),
        ("right", "side(1)", "Right"),
    ]

    class Followed(Message):
        """Following was switched on or off, or lines came that are not on screen."""

    def __init__(self, *, follow: bool = True, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: list[T] = []
        self._drawn: dict[int, Strip] = {}
        self._dropped = 0
        self._left = 0
        self._follows = follow
        self._unseen = 0
        self._placeholder = ""

    @property
    def placeholder(self) -> str:
        """What is said while there are no lines."""
        return self._placeholder

    @placeholder.setter
    def placeholder(self, text: str) -> None:
        if text != self._placeholder:
            self._placeholder = text
            self.refresh()

    @property
    def following(self) -> bool:
        """Whether the view stays at its end."""
        return self._follows

    @property
    def unseen(self) -> int:
        """Lines that came since the view no longer follows."""
        return self._unseen

    @property
    def lines(self) -> list[T]:
        """The lines that are kept."""
        return self._lines

    def line_of(self, line: T) -> Line:
        """Return a line as it is drawn; cleaned, of any length."""
        raise NotImplementedError

    def extend(self, lines: Iterable[T]) -> None:
        """Append lines."""
        before = len(self._lines)
        self._lines.extend(lines)
        added = len(self._lines) - before
        if not added:
            return
        surplus = len(self._lines) - MOST_LINES
        if surplus > _SLACK:
            del self._lines[:surplus]
            self._dropped += surplus
            self._drawn.clear()
            before = max(0, before - surplus)
            if not self._follows:
                self.scroll_to(y=max(0, round(self.scroll_y) - surplus), animate=False, force=True)
        self._resize_content()
        if not self._follows:
            self._unseen += added
            self.post_message(self.Followed())
        if before < self.scroll_y + self.rows or surplus > _SLACK:
            self.refresh()

    def clear(self) -> None:
        """Forget all lines."""
        self._lines.clear()
        self._drawn.clear()
        self._unseen = 0
        self._resize_content()
        self.refresh()

    def notify_style_update(self) -> None:
        """Draw anew in the new style."""
        self._drawn = {}
        super().notify_style_update()

    def on_resize(self) -> None:
        """Keep to the end."""
        self._drawn.clear()
        self._resize_content()

    def render_line(self, y: int) -> Strip:
        """Return a row of the screen."""
        index = round(self.scroll_y) + y
        cells = self.cells
        if index >= len(self._lines):
            empty = not self._lines and y == (self.rows - 1) // 2
            return self.strip([(self._placeholder.center(cells), "dim")] if empty else [], cells)
        strip = self._drawn.get(index)
        if strip is None:
            line = self.line_of(self._lines[index])
            shown = max(cells, line_width(line) - self._left) if self._left else max(cells, line_width(line))
            strip = self.strip(line, shown + self._left).crop(self._left, self._left + cells)
            if len(self._drawn) > _SLACK:
                self._drawn.clear()
            self._drawn[index] = strip
        return strip

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Stop following when scrolled up, follow again at the end."""
        super().watch_scroll_y(old_value, new_value)
        if round(new_value) < round(old_value):
            self._set_following(self._at_end())
        elif self._at_end():
            self._set_following(True)

    def action_go(self, rows: int) -> None:
        """Scroll by rows."""
        self.scroll_to(y=self.scroll_y + rows, animate=False, force=True)

    def action_page(self, pages: int) -> None:
        """Scroll by screens."""
        self.scroll_to(y=self.scroll_y + pages * max(1, self.rows - 1), animate=False, force=True)

    def action_top(self) -> None:
        """Scroll to the first line."""
        self.scroll_to(y=0, animate=False, force=True)

    def action_follow(self, follow: bool) -> None:
        """Go to the end and stay there, or stay here."""
        self._set_following(follow)
        if follow:
            self.scroll_to(y=self.max_scroll_y, animate=False, force=True)

    def action_toggle_follow(self) -> None:
        """Follow, or stop following."""
        self.action_follow(not self._follows)

    def action_side(self, direction: int) -> None:
        """Scroll sideways."""
        left = max(0, self._left + direction * _SIDE_STEP)
        if left != self._left:
            self._left = left
            self._drawn.clear()
            self.refresh()

    def _resize_content(self) -> None:
        self.virtual_size = Size(1, len(self._lines))
        if self._follows:
            self.scroll_to(y=self.max_scroll_y, animate=False, force=True)

    def _at_end(self) -> bool:
        return round(self.scroll_y) >= self.max_scroll_y

    def _set_following(self, follow: bool) -> None:
        if follow != self._follows:
            self._follows = follow
            self._unseen = 0
            self.post_message(self.Followed())

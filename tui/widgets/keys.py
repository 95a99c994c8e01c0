"""The last row of the screen: the keys that are of use here, as many as fit; each can be clicked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from textual import events
from textual.strip import Strip

from tui.text import Line, width
from tui.widgets.toned import Toned


class Key(NamedTuple):
    """A key as it is shown, what it does in a word or two, and the key that a click presses."""

    shown: str
    label: str
    press: str
    #: Whether room is kept for it on the narrowest screen.
    always: bool = False

    @property
    def cells(self) -> int:
        """How wide it is."""
        return width(self.shown) + 1 + width(self.label)


class KeyBar(Toned):
    """The footer. Keys come in order of use, so that a narrow screen loses the least important ones."""

    def __init__(self) -> None:
        super().__init__()
        self._keys: Sequence[Key] = ()

    def show(self, keys: Sequence[Key]) -> None:
        """Show these keys."""
        if keys != self._keys:
            self._keys = keys
            self.refresh()

    def fitting(self, cells: int) -> list[tuple[int, int, Key]]:
        """Return the keys that fit into `cells` cells, with their first cell and the one after their last."""
        kept = sum(key.cells + 2 for key in self._keys if key.always)
        placed: list[tuple[int, int, Key]] = []
        x = 1
        for key in self._keys:
            kept -= key.cells + 2 if key.always else 0
            end = x + key.cells
            if end + kept <= cells:
                placed.append((x, end, key))
                x = end + 2
        return placed

    def render_line(self, y: int) -> Strip:
        """Return the row."""
        line: Line = []
        x = 0
        for start, end, key in self.fitting(self.size.width) if y == 0 else ():
            line += [(" " * (start - x), "text"), (key.shown, "key"), (f" {key.label}", "dim")]
            x = end
        return self.strip(line, self.size.width)

    def on_click(self, event: events.Click) -> None:
        """Press the key that was clicked."""
        for start, end, key in self.fitting(self.size.width):
            if start <= event.x < end:
                # From here and not from the screen: a key that its own ancestor posts does not bubble to the app.
                self.app.simulate_key(key.press)  # pyright: ignore[reportUnknownMemberType]

"""What the full screens share: a title, a body, a line for what went wrong or was done, and the keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.screen import Screen
from textual.widget import Widget

from tui.model import Change
from tui.text import Line, crop
from tui.widgets.keys import Key, KeyBar
from tui.widgets.toned import TONE_CLASSES, LineBar

if TYPE_CHECKING:
    from tui.app import AinfinityApp

HELP = Key("?", "Help", "question_mark", always=True)
QUIT = Key("q", "Quit (jobs go on)", "q")


class Front(Screen[None]):
    """A full screen. The app owns the state and tells its screens when that has changed."""

    COMPONENT_CLASSES: ClassVar[set[str]] = set(TONE_CLASSES)

    def __init__(self) -> None:
        super().__init__()
        self.title_bar = LineBar(id="title")
        self.notice_bar = LineBar(id="notice")
        self.key_bar = KeyBar()

    @property
    def ui(self) -> AinfinityApp:
        """The app, which owns the state."""
        return cast("AinfinityApp", self.app)  # pyright: ignore[reportUnknownMemberType]

    def compose(self) -> ComposeResult:
        """Lay out the rows from top to bottom."""
        yield self.title_bar
        yield from self.body()
        yield self.notice_bar
        yield self.key_bar

    def body(self) -> ComposeResult:
        """Return what lies between title and notice."""
        raise NotImplementedError

    def title_text(self, cells: int) -> Line:
        """Return the title."""
        raise NotImplementedError

    def keys(self) -> Sequence[Key]:
        """Return the keys of use here, the most useful first."""
        raise NotImplementedError

    def jobs_changed(self, change: Change) -> None:
        """Take note that jobs have changed."""
        raise NotImplementedError

    def tick(self, now: float) -> None:
        """Take note that a second has passed."""
        raise NotImplementedError

    def refresh_bars(self) -> None:
        """Draw title, notice and keys as they are now."""
        if not self.is_mounted:
            return
        cells = self.ui.size.width  # the screen itself has no size before its first layout
        self.title_bar.show(self.title_text(cells))
        symbol, text, tone = self.ui.notice()
        show(self.notice_bar, bool(text))
        self.notice_bar.show([(f" {symbol} ", tone), (crop(text, cells - 4), tone)])
        self.key_bar.show(self.keys())

    def on_resize(self) -> None:
        """Fit the bars."""
        self.refresh_bars()

    def on_descendant_focus(self) -> None:
        """Show the keys of what has the focus now."""
        self.refresh_bars()

    def on_screen_resume(self) -> None:
        """Show what changed while another screen was on top."""
        self.tick(self.ui.now())
        self.refresh_bars()


def show(widget: Widget, visible: bool) -> None:
    """Show or hide a widget; saying again what is so already would cost a layout."""
    if widget.display != visible:
        widget.display = visible

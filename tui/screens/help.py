"""Help: every key and symbol on one scrolling page."""

from __future__ import annotations

from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import ModalScreen

from tui.looks import LOOKS
from tui.text import Line, fit
from tui.widgets.text_pane import TextPane
from tui.widgets.toned import TONE_CLASSES

_KEYS: Final = (
    (
        "Jobs",
        (
            ("↑ ↓  j k", "move; pgup pgdn home end for more"),
            ("enter", "open the job"),
            ("l", "open its log"),
            ("/", "filter by name, state, model, tag, owner; esc shows all"),
        ),
    ),
    (
        "A job",
        (
            ("1 2 3 4  tab", "loss, log, events, details"),
            ("l", "log on the full screen"),
            ("z  enter", "zoom the pane; esc goes back"),
            ("↑ ↓ ← →", "scroll"),
            ("f  end", "follow the log; scrolling up stops it"),
        ),
    ),
    (
        "Do",
        (
            ("x", "cancel a job that is not over"),
            ("r", "run a failed or cancelled job again"),
            ("a", "approve a job that waits for it"),
            ("w", "start the worker, which carries jobs out"),
        ),
    ),
    (
        "Everywhere",
        (
            ("ctrl+r", "read everything again"),
            ("?", "this help"),
            ("q  ctrl+c", "quit; jobs go on in the background"),
        ),
    ),
)
_MARGIN: Final = 15


def help_lines() -> list[Line]:
    """Return the page."""
    lines: list[Line] = []
    for title, keys in _KEYS:
        lines.append([(f" {title}", "accent")])
        lines += [[(f"   {fit(key, _MARGIN)}", "key"), (text, "text")] for key, text in keys]
        lines.append([])
    lines.append([(" Symbols", "accent")])
    lines += [[(f"   {look.symbol} ", look.tone), (look.label, "text")] for look in LOOKS.values()]
    lines.append([("   ? ", "warn"), ("no contact with its machine: the state shown is the last one known", "text")])
    return lines


class HelpScreen(ModalScreen[None]):
    """Help over whatever screen is open."""

    CSS_PATH = "dialogue.tcss"
    COMPONENT_CLASSES: ClassVar[set[str]] = set(TONE_CLASSES)
    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,question_mark", "close", "Close")]

    def __init__(self) -> None:
        super().__init__()
        self._pane = TextPane(id="help", follow=False)

    def compose(self) -> ComposeResult:
        """Return the page."""
        yield self._pane

    def on_mount(self) -> None:
        """Fill the page."""
        self._pane.border_title = "Help"
        self._pane.border_subtitle = "↑↓ scroll   esc close"
        self._pane.show(help_lines())
        self._pane.focus()

    def action_close(self) -> None:
        """Go back."""
        self.dismiss()

"""A question before something is done. The safe answer has the focus; only y or the other button does it."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from tui.questions import Question


class ConfirmScreen(ModalScreen[bool]):
    """Asks a question; the result is whether to go on."""

    CSS_PATH = "dialogue.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        ("y", "answer(True)", "Yes"),
        ("n,escape,q", "answer(False)", "No"),
        ("left,up", "app.focus_previous", "Other answer"),
        ("right,down", "app.focus_next", "Other answer"),
    ]

    def __init__(self, question: Question) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """Return the box."""
        question = self._question
        with VerticalScroll(id="dialogue", can_focus=False) as box:
            box.border_title = "?"
            yield Static(question.title, markup=False, id="question")
            yield Static(question.text, markup=False, id="consequence")
            with Horizontal(id="answers"):
                yield Button(f"n {question.no}", id="no", compact=True)
                yield Button(f"y {question.yes}", id="yes", compact=True)

    def on_mount(self) -> None:
        """Begin with the answer that changes nothing."""
        self.query_one("#no", Button).focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, answer: bool) -> None:
        """Answer."""
        self.dismiss(answer)

"""The jobs table: draws the rows that are on screen and no others, so that ten thousand cost what twenty do."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from textual import events
from textual.binding import BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.columns import Column, header_line, layout, row_line
from tui.model import JobsModel
from tui.text import Line
from tui.widgets.toned import LineBar, Toned

#: Rows whose strips are kept; more than any screen shows.
_MOST_DRAWN = 500


class JobTable(Toned, ScrollView, can_focus=True):
    """Rows of a `JobsModel`. The cursor stays on its job while others come and go."""

    DEFAULT_CSS = "JobTable { height: 1fr; overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        ("up,k", "move(-1)", "Up"),
        ("down,j", "move(1)", "Down"),
        ("pageup,ctrl+b", "page(-1)", "Page up"),
        ("pagedown,ctrl+f", "page(1)", "Page down"),
        ("home,g", "end(-1)", "First"),
        ("end,G", "end(1)", "Last"),
        ("enter", "open", "Open"),
    ]

    class Opened(Message):
        """A job was chosen."""

        def __init__(self, job: str) -> None:
            super().__init__()
            self.job = job

    class Moved(Message):
        """The cursor is on another job, or on none."""

    def __init__(self, model: JobsModel, header: LineBar) -> None:
        super().__init__()
        self._model = model
        self._header = header
        self._jobs: list[str] = model.visible
        self._columns: list[Column] = []
        self._index = 0
        self._job: str | None = self._jobs[0] if self._jobs else None
        self._now = 0.0
        self._drawn: dict[str, tuple[Line, bool, Strip]] = {}
        self._touched = False

    @property
    def job(self) -> str | None:
        """The id of the job under the cursor."""
        return self._job

    @property
    def index(self) -> int:
        """The row that the cursor is on."""
        return self._index

    def notify_style_update(self) -> None:
        """Draw anew in the new style."""
        self._drawn = {}
        super().notify_style_update()

    def on_resize(self) -> None:
        """Choose the columns that fit."""
        self._arrange()

    def update(self, changed: Collection[str], now: float) -> None:
        """Show the model's list as it is; `changed` are the jobs whose rows look different."""
        self._now = now
        if self._model.visible is not self._jobs:
            self._relist()
            return
        for y, job in enumerate(self._on_screen()):
            if job in changed:
                self._refresh_row(y)

    def tick(self, now: float) -> None:
        """Let time pass: repaint the rows in which an age or ETA reads different."""
        self._now = now
        for y, job in enumerate(self._on_screen()):
            drawn = self._drawn.get(job)
            if drawn is not None and drawn[0] != self._line(job):
                self._refresh_row(y)

    def select(self, job: str) -> None:
        """Put the cursor on a job, if it is in the list."""
        if job in self._model.rows and job in self._jobs:
            self._move_to(self._jobs.index(job))

    def action_move(self, rows: int) -> None:
        """Move the cursor by rows."""
        self._move_to(self._index + rows)

    def action_page(self, pages: int) -> None:
        """Move the cursor by screens."""
        self._move_to(self._index + pages * max(1, self.rows - 1))

    def action_end(self, direction: int) -> None:
        """Move the cursor to the first or the last row."""
        self._move_to(0 if direction < 0 else len(self._jobs) - 1)

    def action_open(self) -> None:
        """Choose the job under the cursor."""
        if self._job is not None:
            self.post_message(self.Opened(self._job))

    def on_click(self, event: events.Click) -> None:
        """Put the cursor on the row; a click on it again opens it."""
        index = round(self.scroll_y) + event.y
        if index >= len(self._jobs):
            return
        if index == self._index:
            self.action_open()
        else:
            self._move_to(index)

    def render_line(self, y: int) -> Strip:
        """Return a row of the screen."""
        index = round(self.scroll_y) + y
        cells = self.cells
        if index >= len(self._jobs):
            return self.strip([], cells)
        job = self._jobs[index]
        line = self._line(job)
        cursor = index == self._index
        drawn = self._drawn.get(job)
        if drawn is not None and drawn[:2] == (line, cursor):
            return drawn[2]
        strip = self.strip([("❯" if cursor else " ", "accent"), *line], cells, "cursor" if cursor else "")
        if len(self._drawn) > _MOST_DRAWN:
            self._drawn.clear()
        self._drawn[job] = line, cursor, strip
        return strip

    def _line(self, job: str) -> Line:
        return row_line(self._model.rows[job], self._columns, self._now)

    def _on_screen(self) -> list[str]:
        top = round(self.scroll_y)
        return self._jobs[top : top + self.rows]

    def _refresh_row(self, y: int) -> None:
        self.refresh_line(y + round(self.scroll_y))

    def _arrange(self) -> None:
        self._columns = layout(self.cells - 1, owners=self._model.many_owners)
        self._header.show([(" ", "dim"), *header_line(self._columns)])
        self._drawn.clear()
        self.virtual_size = Size(self.cells, len(self._jobs))

    def _relist(self) -> None:
        """Take the model's list; keep the cursor on its job, or where it was if that job is gone."""
        self._jobs = self._model.visible
        self._arrange()
        index = self._index
        if self._job is not None and self._touched:
            index = _index_of(self._jobs, self._job, self._index)
        self._go(index, always=True)
        self.refresh()

    def _move_to(self, index: int) -> None:
        """Put the cursor where the user wants it; from then on it stays on its job."""
        self._touched = True
        self._go(index)

    def _go(self, index: int, *, always: bool = False) -> None:
        index = min(max(0, index), max(0, len(self._jobs) - 1))
        job = self._jobs[index] if self._jobs else None
        moved = job != self._job
        old, self._index, self._job = self._index, index, job
        if old != index or always:
            self.refresh_lines(old)
            self.refresh_lines(index)
            self._scroll_into_view(index)
        if moved:
            self.post_message(self.Moved())

    def _scroll_into_view(self, index: int) -> None:
        top, height = round(self.scroll_y), max(1, self.rows)
        target = min(max(top, index - height + 1), index)
        if target != top:
            self.scroll_to(y=target, animate=False, force=True)


def _index_of(jobs: list[str], job: str, default: int) -> int:
    try:
        return jobs.index(job)
    except ValueError:
        return default

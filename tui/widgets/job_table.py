"""The jobs table: draws the rows that are on screen and no others, so that ten thousand cost what twenty do."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from textual import events
from textual.binding import BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from ainfinity.schema.states import JobState
from ainfinity.schema.views import JobRow
from tui.columns import Column, header_line, layout, row_line
from tui.model import JobsModel
from tui.text import Line, centred
from tui.widgets.toned import Toned

#: Rows whose strips are kept; more than any screen shows.
_MOST_DRAWN = 500
#: On a screen lower than this the rows need the room of the header.
_LEAST_HEIGHT = 7


class _Drawing:
    """A row as it was drawn last, and from what."""

    __slots__ = ("cursor", "line", "now", "row", "strip")

    def __init__(self, row: JobRow, now: float, cursor: bool, line: Line, strip: Strip) -> None:
        self.row = row
        self.now = now
        self.cursor = cursor
        self.line = line
        self.strip = strip


class JobTable(Toned, ScrollView, can_focus=True):
    """Rows of a `JobsModel`. The cursor stays on its job while others come and go."""

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

    def __init__(self, model: JobsModel) -> None:
        super().__init__()
        self._model = model
        self._jobs: list[str] = model.visible
        self._shown = model.many_owners, model.any_costs
        self._columns: tuple[int, list[Column]] = (0, [])
        self._index = 0
        self._job: str | None = self._jobs[0] if self._jobs else None
        self._now = 0.0
        self._minute = 0
        self._instead: list[Line] = []
        self._drawn: dict[str, _Drawing] = {}
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

    def on_mount(self) -> None:
        """Be as high as the list before the first frame, so that this is the final one."""
        self._resize_content()

    def on_resize(self) -> None:
        """Keep the cursor on screen."""
        self._resize_content()
        self._scroll_into_view(self._index)

    def update(self, changed: Collection[str], now: float) -> None:
        """Show the model's list as it is; `changed` are the jobs whose rows look different."""
        self._now = now
        if self._model.visible is not self._jobs:
            self._relist()
            return
        for y, job in enumerate(self._on_screen()):
            if job in changed:
                self._refresh_row(y)

    def say_instead(self, lines: list[Line]) -> None:
        """Show these lines in the middle while there are no rows: why that is so, and what to do next."""
        if lines != self._instead:
            self._instead = lines
            if not self._jobs:
                self.refresh()

    def tick(self, now: float) -> None:
        """Let time pass: repaint the rows in which an age or ETA reads different."""
        minute, self._minute = self._minute, int(now // 60)
        everything = minute != self._minute  # most of what is shown reads the same for a minute
        on_screen = [(y, job, self._drawn.get(job)) for y, job in enumerate(self._on_screen())]
        self._now = now
        for y, job, drawn in on_screen:
            if drawn is None or not (everything or _moves(drawn.row, now)):
                continue
            if self._drawing(job, cursor=drawn.cursor).strip is not drawn.strip:
                self._refresh_row(y)

    def select(self, job: str) -> None:
        """Put the cursor on a job, if it is in the list."""
        if job in self._model.rows and job in self._jobs:
            self._go(self._jobs.index(job))

    def action_move(self, rows: int) -> None:
        """Move the cursor by rows."""
        self._go(self._index + rows)

    def action_page(self, pages: int) -> None:
        """Move the cursor by screens."""
        self._go(self._index + pages * max(1, self._height - 1))

    def action_end(self, direction: int) -> None:
        """Move the cursor to the first or the last row."""
        self._go(0 if direction < 0 else len(self._jobs) - 1)

    def action_open(self) -> None:
        """Choose the job under the cursor."""
        if self._job is not None:
            self.post_message(self.Opened(self._job))

    def on_click(self, event: events.Click) -> None:
        """Put the cursor on the row; a click on it again opens it."""
        index = round(self.scroll_y) + event.y - self._head
        if not 0 <= index < len(self._jobs):
            return
        self._touched = True
        if index == self._index:
            self.action_open()
        else:
            self._go(index)

    def render_line(self, y: int) -> Strip:
        """Return a row of the screen."""
        index = round(self.scroll_y) + y - self._head
        cells = self.cells
        if not self._jobs:
            return self.strip(centred(self._instead, y, cells, self.rows), cells)
        if y < self._head:
            return self.strip([(" ", "dim"), *header_line(self._fitting())], cells, row="head")
        if index >= len(self._jobs):
            return self.strip([], cells)
        return self._drawing(self._jobs[index], cursor=index == self._index).strip

    def _drawing(self, job: str, *, cursor: bool) -> _Drawing:
        """Return a job's row as it is drawn now, from the store where nothing in it has changed."""
        row, columns = self._model.rows[job], self._fitting()
        drawn = self._drawn.get(job)
        if drawn is not None and drawn.row is row and drawn.now == self._now and drawn.cursor == cursor:
            return drawn
        line = row_line(row, columns, self._now)
        if drawn is not None and drawn.line == line and drawn.cursor == cursor:
            strip = drawn.strip
        else:
            mark = "❯" if cursor else " "
            strip = self.strip([(mark, "accent"), *line], self.cells, row="cursor" if cursor else "")
        if len(self._drawn) > _MOST_DRAWN:
            self._drawn.clear()
        drawn = self._drawn[job] = _Drawing(row, self._now, cursor, line, strip)
        return drawn

    def _on_screen(self) -> list[str]:
        top = round(self.scroll_y)
        return self._jobs[top : top + self._height]

    @property
    def _head(self) -> int:
        """Rows of the header: none where there is no room for it. Known before the first layout."""
        return 1 if self._jobs and self.screen.app.size.height >= _LEAST_HEIGHT else 0  # pyright: ignore[reportUnknownMemberType]

    @property
    def _height(self) -> int:
        """How many jobs fit on the screen."""
        return max(1, self.rows - self._head)

    def _fitting(self) -> list[Column]:
        """Return the columns that fit."""
        if self._columns[0] != self.cells:
            owners, costs = self._shown
            self._columns = self.cells, layout(self.cells - 1, owners=owners, costs=costs)
            self._drawn.clear()
        return self._columns[1]

    def _refresh_row(self, y: int) -> None:
        self.refresh(Region(0, y + self._head, self.size.width, 1))

    def _resize_content(self) -> None:
        # Of the virtual size only the height counts; a width that follows the screen's would cost a second layout.
        self.virtual_size = Size(1, len(self._jobs) + self._head)

    def _relist(self) -> None:
        """Take the model's list; keep the cursor on its job, or where it was if that job is gone."""
        self._jobs = self._model.visible
        shown = self._model.many_owners, self._model.any_costs
        if self._shown != shown:
            self._shown = shown
            self._columns = (0, [])
        self._resize_content()
        index = self._index
        if self._job is not None and self._touched:
            index = _index_of(self._jobs, self._job, self._index)
        self._go(index, always=True)
        self.refresh()

    def on_key(self) -> None:
        """From the first key on the cursor stays on its job; until then it stays at the top."""
        self._touched = True

    def _go(self, index: int, *, always: bool = False) -> None:
        index = min(max(0, index), max(0, len(self._jobs) - 1))
        job = self._jobs[index] if self._jobs else None
        moved = job != self._job
        old, self._index, self._job = self._index, index, job
        if old != index or always:
            top = round(self.scroll_y)
            self._refresh_row(old - top)
            self._refresh_row(index - top)
            self._scroll_into_view(index)
        if moved:
            self.post_message(self.Moved())

    def _scroll_into_view(self, index: int) -> None:
        top, height = round(self.scroll_y), self._height
        target = min(max(top, index - height + 1), index)
        if target != top:
            self.scroll_to(y=target, animate=False, force=True)


def _index_of(jobs: list[str], job: str, default: int) -> int:
    try:
        return jobs.index(job)
    except ValueError:
        return default


def _moves(row: JobRow, now: float) -> bool:
    """Whether a row reads different from second to second."""
    return row.state == JobState.RUNNING or now - row.submitted_at < 2 * 60

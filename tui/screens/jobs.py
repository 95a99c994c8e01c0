"""The jobs screen: every job, a filter, and what is under the cursor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType

from ainfinity.schema.states import JobState
from ainfinity.schema.views import JobRow
from tui.columns import where
from tui.looks import may_approve, may_cancel, may_retry
from tui.model import Change
from tui.screens.front import HELP, QUIT, Front, show
from tui.status import status_line
from tui.text import Line, clean, wrap
from tui.widgets.job_table import JobTable
from tui.widgets.keys import Key
from tui.widgets.toned import LineBar

if TYPE_CHECKING:
    from textual.widgets import Input

    from tui.model import JobsModel


class JobsScreen(Front):
    """All jobs."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("slash", "filter", "Filter"),
        ("escape", "clear_filter", "Clear the filter"),
        ("l", "open_log", "Log"),
        ("x", "cancel", "Cancel"),
        ("r", "retry", "Run again"),
        ("a", "approve", "Approve"),
    ]

    def __init__(self, model: JobsModel) -> None:
        super().__init__()
        self._model = model
        self.table = JobTable(model)
        self._peek = LineBar(id="peek")
        self._input: Input | None = None

    @property
    def row(self) -> JobRow | None:
        """The job under the cursor."""
        job = self.table.job
        return self._model.rows.get(job) if job is not None else None

    def body(self) -> ComposeResult:
        """Return the table and what explains it."""
        yield self.table
        yield self._peek

    def on_mount(self) -> None:
        """Draw the first frame."""
        self.table.update((), self.ui.now())
        self.refresh_bars()

    def jobs_changed(self, change: Change) -> None:
        """Show the rows that changed."""
        self.table.update(change.ids, self.ui.now())
        self.refresh_bars()

    def tick(self, now: float) -> None:
        """Let ages and ETAs go on."""
        if self.table.is_attached:  # while the app ends, its timer outlives the table
            self.table.tick(now)

    def title_text(self, cells: int) -> Line:
        """Return the counts by state and whether a worker is alive."""
        model = self._model
        return status_line(
            model.counts,
            visible=len(model.visible),
            filtered=bool(model.filter),
            loading=not self.ui.listed,
            worker=self.ui.worker,
            cells=cells,
        )

    def keys(self) -> Sequence[Key]:
        """Return the keys that do something for the job under the cursor, then the general ones."""
        if self._input is not None and self._input.has_focus:
            return (
                Key("enter", "Keep filter", "enter"),
                Key("esc", "Clear", "escape"),
                Key("↑↓", "Move", "down"),
            )
        row = self.row
        found = [Key("enter", "Open", "enter"), Key("l", "Log", "l")] if row is not None else []
        if not self.ui.read_only:
            if may_cancel(row):
                found.append(Key("x", "Cancel", "x"))
            if may_retry(row):
                found.append(Key("r", "Run again", "r"))
            if may_approve(row):
                found.append(Key("a", "Approve", "a"))
        if self._model.rows:
            found.append(Key("/", "Filter", "slash"))
        if self._model.filter:
            found.append(Key("esc", "All jobs", "escape"))
        if row is not None:
            found.append(Key("↑↓", "Move", "down"))
        return (*found, HELP, QUIT)

    def refresh_bars(self) -> None:
        """Draw the bars, the line about the job under the cursor, and what stands in for an empty table."""
        super().refresh_bars()
        if not self.is_mounted:
            return
        nothing = not self._model.visible
        self._peek.show(peek_line(self.row))
        show(self._peek, not nothing and self.ui.size.height >= 10)
        self.table.say_instead(self._why_nothing() if nothing else [])

    def _why_nothing(self) -> list[Line]:
        if self._model.rows:
            return [
                [("No job matches ", "text"), (f"“{self._model.filter}”", "bold")],
                [],
                [("esc", "key"), (" shows all jobs", "dim")],
            ]
        trouble = self.ui.troubles.get("jobs", "")
        if not self.ui.listed and trouble:
            return [[(part, "warn")] for part in wrap(trouble, max(20, min(70, self.size.width - 4)))]
        if not self.ui.listed:
            return [[("Reading the jobs …", "dim")]]
        return [
            [("No jobs yet.", "bold")],
            [],
            [("make demo", "key"), ("                   fine-tune a small model here", "dim")],
            [("ainfinity new", "key"), ("               write a job file for your data", "dim")],
            [("ainfinity launch FILE", "key"), ("       start it; it shows up here", "dim")],
        ]

    @on(JobTable.Moved)
    def _moved(self) -> None:
        self.refresh_bars()

    @on(JobTable.Opened)
    def _opened(self, message: JobTable.Opened) -> None:
        self.ui.open_job(message.job)

    def action_open_log(self) -> None:
        """Open the log of the job under the cursor."""
        if (job := self.table.job) is not None:
            self.ui.open_job(job, log=True)

    def action_cancel(self) -> None:
        """Ask whether to cancel the job under the cursor."""
        self.ui.ask_cancel(self.row)

    def action_retry(self) -> None:
        """Ask whether to run the job under the cursor again."""
        self.ui.ask_retry(self.row)

    def action_approve(self) -> None:
        """Ask whether to approve the job under the cursor."""
        self.ui.ask_approve(self.row)

    async def action_filter(self) -> None:
        """Ask for words to filter by."""
        from textual.containers import Horizontal
        from textual.widgets import Input

        if self._input is None:
            self._input = Input(self._model.filter, placeholder="name, state, model, tag or owner", compact=True)
            self._input.cursor_blink = False  # an idle screen costs nothing
            sign = LineBar([(" / ", "key")])
            await self.mount(Horizontal(sign, self._input, id="filter"), before=self.table)
        self._input.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter on every key."""
        if self._model.set_filter(event.value):
            self.jobs_changed(Change(True, frozenset()))

    async def on_input_submitted(self) -> None:
        """Keep the filter and go back to the table."""
        self.table.focus()
        if self._input is not None and not self._model.filter:
            await self._close_filter()

    async def action_clear_filter(self) -> None:
        """Show all jobs again."""
        if self._model.set_filter(""):
            self.jobs_changed(Change(True, frozenset()))
        await self._close_filter()

    async def _close_filter(self) -> None:
        if self._input is not None:
            self._input = None
            self.table.focus()
            await self.query("#filter").remove()

    def on_key(self, event: events.Key) -> None:
        """Let the cursor move while the filter is typed."""
        moves = {"up": -1, "down": 1}
        if self._input is not None and self._input.has_focus:
            if event.key in moves:
                self.table.action_move(moves[event.key])
                event.stop()
            elif event.key in ("pageup", "pagedown"):
                self.table.action_page(-1 if event.key == "pageup" else 1)
                event.stop()


def peek_line(row: JobRow | None) -> Line:
    """Say in one line what the table has no room for: the error of a failed job, else where it runs, tags and note."""
    if row is None:
        return []
    if row.state == JobState.FAILED:
        return [(" ✗ ", "bad"), (clean(f"{row.error_code}: {row.error_message}".strip(": ")), "text")]
    parts = [
        clean(row.model),
        where(row),
        clean(row.owner),
        *(f"#{clean(tag)}" for tag in row.tags),
        clean(row.note),
    ]
    return [(" › ", "accent"), ("  ".join(part for part in parts if part), "dim")]

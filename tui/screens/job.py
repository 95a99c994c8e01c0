"""The page of one job: its header, and four panes of which as many show as there is room for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.widget import Widget
from textual.worker import Worker

from ainfinity.schema.states import JobState
from tui import format as fmt
from tui.event_lines import event_lines
from tui.job_lines import detail_lines, header_lines, title_line
from tui.link import JobLink
from tui.looks import is_live, may_approve, may_cancel, may_retry
from tui.messages import Detailed, Gone, Happened, Logged, Measured, Trouble
from tui.model import Change
from tui.page import JobPage
from tui.screens.front import HELP, Front, show
from tui.text import Line
from tui.widgets.block import LineBlock
from tui.widgets.chart import MARK, Chart
from tui.widgets.keys import Key
from tui.widgets.lines_view import LinesView
from tui.widgets.log_view import LogView
from tui.widgets.text_pane import TextPane, WrappedPane

if TYPE_CHECKING:
    from ainfinity.client.port import Client

#: The panes by number, in the order in which tab visits them.
PANES: Final = ("loss", "log", "events", "details")
_TITLES: Final = {"loss": "1 Loss", "log": "2 Log", "events": "3 Events", "details": "4 Details"}
#: From this size on all panes show; below that height only one does.
_WIDE: Final = 110
_TALL: Final = 28
_LOW: Final = 17


class JobScreen(Front):
    """One job."""

    CSS_PATH = "job.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape,backspace", "back", "Back"),
        Binding("tab", "turn(1)", "Next pane", priority=True),
        Binding("shift+tab", "turn(-1)", "Pane before", priority=True),
        *[Binding(str(number), f"pane('{pane}')", _TITLES[pane]) for number, pane in enumerate(PANES, 1)],
        ("l", "full_log", "Log, full"),
        ("z,enter", "zoom", "Zoom"),
        ("x", "cancel", "Cancel"),
        ("r", "retry", "Run again"),
        ("a", "approve", "Approve"),
    ]

    def __init__(self, job: str, page: JobPage, *, log: bool = False) -> None:
        super().__init__()
        self.job = job
        self.page = page
        self._header = LineBlock(id="header")
        self.chart = Chart(page.loss, page.held_out, id="loss")
        self.log_view = LogView(id="log")
        self.events_pane = TextPane(id="events")
        self.details = WrappedPane(self._detail_lines, id="details")
        self._panes: dict[str, Widget] = dict(
            zip(PANES, (self.chart, self.log_view, self.events_pane, self.details), strict=True)
        )
        self._pane = "log"
        self._lower = "log"
        self._chosen = log
        self._zoomed = log
        self._link: JobLink | None = None
        self._log_worker: Worker[None] | None = None
        self._log_attempt = 0

    def body(self) -> ComposeResult:
        """Return header and panes."""
        yield self._header
        # In this order the grid of a wide screen reads 1 and 2 on the left, 3 and 4 on the right.
        with Container(id="panes"):
            yield from (self.chart, self.events_pane, self.log_view, self.details)

    def on_mount(self) -> None:
        """Show what is known, then read the rest."""
        self._choose_pane()
        self._show()
        if self.ui.client is not None:
            self.connect(self.ui.client)

    def connect(self, client: Client) -> None:
        """Begin to read, once the client is open."""
        self._link = JobLink(client, self.job, self.post_message)
        self._link.wake(everything=True)
        self.run_worker(self._link.run(), group="read", exclusive=True)
        self._start_log()

    def _start_log(self) -> None:
        if self._link is not None:
            self._log_worker = self.run_worker(self._link.follow_log(), group="log", exclusive=True)

    # What happens.

    def jobs_changed(self, change: Change) -> None:
        """Show the job's new row, and read what came with it."""
        row = self.ui.model.rows.get(self.job)
        if self.job not in change.ids:
            return
        if row is None:
            if self.ui.listed:
                self.post_message(Gone(self.job))
            return
        before, self.page.row = self.page.row, row if self.page.row is None else self.page.row
        self.page.take_row(row)
        if self._link is not None:
            self._link.wake(everything=before is None or before.seq != row.seq)
            if self._log_worker is not None and self._log_worker.is_finished and is_live(row.state):
                self._start_log()
        self._choose_pane()
        self._show()

    def tick(self, now: float) -> None:
        """Let ages and ETA go on."""
        self._show_header(now)

    @on(Detailed)
    def _detailed(self, message: Detailed) -> None:
        self.page.take_detail(message.detail)
        self.ui.take_row(message.detail.job)
        self._choose_pane()
        self._show()

    @on(Happened)
    def _happened(self, message: Happened) -> None:
        row = self.page.row
        fresh = self.page.take_events(message.events)
        if fresh:
            begun = row.submitted_at if row is not None else fresh[0].at
            self.events_pane.extend(event_lines(fresh, begun))
        self._show()

    @on(Measured)
    def _measured(self, message: Measured) -> None:
        self.page.take_points(message.points)
        self._show()

    @on(Logged)
    def _logged(self, message: Logged) -> None:
        chunk = message.chunk
        if chunk is None:
            self.log_view.clear()
            self._log_attempt = 0
            return
        if chunk.attempt != self._log_attempt:
            if self._log_attempt:
                self.log_view.write([f"──── attempt {chunk.attempt} ────"])
            self._log_attempt = chunk.attempt
        self.log_view.write(chunk.lines)
        self._show_titles()

    @on(Trouble)
    def _trouble(self, message: Trouble) -> None:
        self.ui.post_message(message)

    @on(LinesView.Followed)
    def _followed(self) -> None:
        self._show_titles()

    @on(Gone)
    def _gone(self, message: Gone) -> None:
        self.ui.post_message(message)

    # What is drawn.

    def title_text(self, cells: int) -> Line:
        """Return which job this is."""
        return title_line(self.page, cells)

    def keys(self) -> Sequence[Key]:
        """Return the keys of use here."""
        row = self.page.row
        found = [Key("esc", "Zoom out" if self._zoomed else "Jobs", "escape")]
        if not self.ui.read_only:
            if may_cancel(row):
                found.append(Key("x", "Cancel", "x"))
            if may_retry(row):
                found.append(Key("r", "Run again", "r"))
            if may_approve(row):
                found.append(Key("a", "Approve", "a"))
        if not self._zoomed:
            found.append(Key("l", "Full log", "l"))
        found.append(Key("tab 1-4", "Panes", "tab"))
        if self._pane == "log" and self.log_view.lines and self._is_live():
            found.append(Key("f", "Unfollow" if self.log_view.following else "Follow", "f"))
        return (*found, HELP, Key("q", "Quit", "q"))

    def _show(self) -> None:
        now = self.ui.now()
        self._show_header(now)
        row = self.page.row
        live = row is None or is_live(row.state)
        self.chart.update("The first loss appears here." if live else "No loss was reported.")
        self.log_view.placeholder = "The log appears here once the job runs." if live else "There is no log."
        self.events_pane.placeholder = "No events yet."
        self.details.update()
        self._show_titles()
        self.refresh_bars()

    def _detail_lines(self, cells: int) -> list[Line]:
        return detail_lines(self.page, self.ui.now(), cells)

    def _show_header(self, now: float) -> None:
        rows = max(1, min(6, self.ui.size.height - 12))
        self._header.show(header_lines(self.page, now, self.ui.size.width, rows))

    def _show_titles(self) -> None:
        notes = {"loss": loss_note(self.page)}
        for pane, view in (("log", self.log_view), ("events", self.events_pane)):
            if view.following or not view.lines:
                notes[pane] = "following" if view.lines and self._is_live() else ""
            else:
                notes[pane] = f"{fmt.plural(view.unseen, 'new line')} below, f follows" if view.unseen else "f follows"
        # What is not on screen is named beside what is, so that its number can be pressed.
        hidden = [_TITLES[pane] for pane in PANES[1:] if not self._panes[pane].display]
        others = "" if self._zoomed else "   ".join(hidden)
        for pane, widget in self._panes.items():
            parts = [_TITLES[pane], notes.get(pane, ""), others if pane != "loss" or len(hidden) == 3 else ""]
            widget.border_title = f" {'   '.join(part for part in parts if part)} "
        self.key_bar.show(self.keys())

    def _is_live(self) -> bool:
        return self.page.row is not None and is_live(self.page.row.state)

    # Which panes show.

    def on_resize(self) -> None:
        """Show as many panes as there is room for."""
        self._arrange()
        self.call_after_refresh(self._show)

    def _choose_pane(self) -> None:
        """Until the user chooses a pane, show the one that says most in this state."""
        row = self.page.row
        if not self._chosen and row is not None:
            self._lower = self._pane = "details" if row.state == JobState.SUCCEEDED else "log"
        self._arrange()

    def _arrange(self) -> None:
        wide = self.ui.size.width >= _WIDE and self.ui.size.height >= _TALL and not self._zoomed
        if self._zoomed or (self.ui.size.height < _LOW and not wide):
            shown = {self._pane}
        elif wide:
            shown = set(PANES)
        else:
            shown = {"loss", self._lower}
        self.set_class(wide, "-wide")
        self.set_class(len(shown) == 1, "-single")
        for pane, widget in self._panes.items():
            show(widget, pane in shown)
        self._panes[self._pane].focus(scroll_visible=False)

    def action_pane(self, pane: str) -> None:
        """Go to a pane."""
        self._chosen = True
        self._pane = pane
        if pane != "loss":
            self._lower = pane
        self._arrange()
        self._show()

    def action_turn(self, direction: int) -> None:
        """Go to the next pane, or the one before."""
        self.action_pane(PANES[(PANES.index(self._pane) + direction) % len(PANES)])

    def action_zoom(self) -> None:
        """Give the pane all the room, or take it back."""
        self._zoomed = not self._zoomed
        self.action_pane(self._pane)

    def action_full_log(self) -> None:
        """Give the log all the room, or take it back."""
        self._zoomed = not (self._zoomed and self._pane == "log")
        self.action_pane("log")

    def action_back(self) -> None:
        """Leave the zoom, or the page."""
        if self._zoomed:
            self.action_zoom()
        else:
            self.ui.close_job()

    def action_cancel(self) -> None:
        """Ask whether to cancel the job."""
        self.ui.ask_cancel(self.page.row)

    def action_retry(self) -> None:
        """Ask whether to run the job again."""
        self.ui.ask_retry(self.page.row)

    def action_approve(self) -> None:
        """Ask whether to approve the job."""
        self.ui.ask_approve(self.page.row)


def loss_note(page: JobPage) -> str:
    """Say in numbers what the chart shows: the loss now and at best, held-out before and now."""
    curve, marks = page.loss, page.held_out
    now = f"{fmt.loss(curve.ys[-1])} now, {fmt.loss(curve.extent()[0])} best" if len(curve) else ""
    if curve.holes:
        now = f"{now}   {fmt.plural(curve.holes, 'step')} without a number".strip()
    if not len(marks):
        return now
    change = " → ".join(fmt.loss(y) for y in (marks.ys[0], marks.ys[-1])[: len(marks)])
    return f"{now}   {MARK} held-out {change}".strip()

"""The app: it owns the state, shows rows before the service is reached, and keeps up with the feed."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from textual import on
from textual.app import App
from textual.binding import Binding, BindingType
from textual.reactive import Reactive
from textual.theme import Theme

from ainfinity.core.clock import Clock, SystemClock
from ainfinity.schema.views import JobRow, WorkerStatus
from tui import messages
from tui.explain import explain
from tui.looks import look_of, may_approve, may_cancel, may_retry
from tui.model import Change, JobsModel
from tui.screens.front import Front
from tui.screens.jobs import JobsScreen
from tui.text import clean

if TYPE_CHECKING:
    from ainfinity.client.port import Client
    from tui.link import Link
    from tui.questions import Question
    from tui.screens.job import JobScreen

OpenClient = Callable[[], Awaitable["Client"]]
FirstPaint = Callable[[], list[JobRow]]

#: Seconds that the first frames have for themselves before the client is opened; opening it loads the CPU.
SETTLING: Final = 0.03
#: Seconds for which the answer to a command is shown.
SAID_FOR: Final = 6.0
THEME: Final = Theme(
    name="ainfinity",
    primary="#6cb6ff",
    secondary="#8b98a9",
    accent="#c8a2ff",
    foreground="#dbe2ec",
    background="#10151d",
    surface="#161c26",
    panel="#1e2633",
    success="#7ddb92",
    warning="#f0c067",
    error="#ff7d84",
    variables={"footer-key-foreground": "#6cb6ff", "border": "#3a4657"},
)


class AinfinityApp(App[None]):
    """The terminal UI."""

    CSS_PATH = Path("app.tcss")
    ENABLE_COMMAND_PALETTE = False
    TITLE = "ainfinity"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "leave", "Quit"),
        Binding("ctrl+c,ctrl+q", "leave", "Quit", priority=True),
        ("question_mark", "help", "Help"),
        ("ctrl+r", "reread", "Read again"),
        ("w", "start_worker", "Start the worker"),
    ]

    #: The name of the theme.
    theme: Reactive[str] = Reactive(os.environ.get("TEXTUAL_THEME", THEME.name))

    def __init__(
        self,
        open_client: OpenClient,
        first_paint: FirstPaint,
        *,
        job: str | None = None,
        read_only: bool = False,
        clock: Clock | None = None,
    ) -> None:
        super().__init__()
        self.read_only = read_only
        self.client: Client | None = None
        #: Whether the service itself has listed the jobs; until then rows are those of the first paint.
        self.listed = False
        self.worker: WorkerStatus | None = None
        self.troubles: dict[str, str] = {}
        self._clock = clock or SystemClock()
        self._open_client = open_client
        self._link: Link | None = None
        self._wanted = job
        self._said = ("", "text")
        self._said_until = 0.0
        self.model = JobsModel(self._first_rows(first_paint))

    @property
    def available_themes(self) -> dict[str, Theme]:
        """All themes. Ours is known from the start: setting it later would work out every style twice."""
        return {THEME.name: THEME, **super().available_themes}

    def now(self) -> float:
        """Unix seconds, by the clock that all screens use."""
        return self._clock.now()

    def _first_rows(self, first_paint: FirstPaint) -> list[JobRow]:
        try:
            return first_paint()
        except Exception as error:  # noqa: BLE001  # shown; the service may still answer
            self.troubles["jobs"] = explain(error)
            return []

    def get_default_screen(self) -> JobsScreen:
        """Begin with the jobs."""
        return JobsScreen(self.model)

    def on_mount(self) -> None:
        """Open the wished job, then, after the first paint, the client."""
        self._open_wanted()
        self.set_timer(SETTLING, self._start)
        self.set_interval(1.0, self._tick)

    def _start(self) -> None:
        from tui.link import Link

        self._link = Link(self._open_client, self.post_message)
        self.run_worker(self._link.run(), group="feed")

    async def on_unmount(self) -> None:
        """Let go of the client. Jobs go on."""
        if self._link is not None:
            await self._link.close()

    # What workers tell.

    @on(messages.Opened)
    def _opened(self, message: messages.Opened) -> None:
        self.client = message.client
        if self._link is not None:
            self.run_worker(self._link.watch_worker(), group="worker")
        if (page := self._job_screen()) is not None:
            page.connect(message.client)

    @on(messages.Listed)
    def _listed(self, message: messages.Listed) -> None:
        before = frozenset(self.model.rows)
        self.listed = True
        change = self.model.replace(message.rows)
        self._changed(Change(True, change.ids | before))
        self._open_wanted()

    @on(messages.Fed)
    def _fed(self, message: messages.Fed) -> None:
        self._changed(self.model.apply(message.item))

    @on(messages.WorkerSeen)
    def _worker_seen(self, message: messages.WorkerSeen) -> None:
        if message.status != self.worker:
            self.worker = message.status
            self._show_bars()

    @on(messages.Trouble)
    def _trouble(self, message: messages.Trouble) -> None:
        if self.troubles.get(message.source, "") == message.text:
            return
        self.troubles.pop(message.source, None)
        if message.text:
            self.troubles[message.source] = message.text
        self._show_bars()

    @on(messages.Answered)
    def _answered(self, message: messages.Answered) -> None:
        if message.row is not None:
            self.take_row(message.row)
        self.say(message.text, "good")

    @on(messages.Declined)
    def _declined(self, message: messages.Declined) -> None:
        self.say(message.text, "warn")

    @on(messages.Gone)
    def _gone(self, message: messages.Gone) -> None:
        row = self.model.rows.get(message.job)
        page = self._job_screen()
        if page is not None and page.job == message.job:
            row = row or page.page.row
            self.close_job()
        if row is None:
            return  # told already
        name = clean(row.name)
        self._changed(self.model.remove(message.job))
        self.say(f"{name} was deleted.", "warn")

    def take_row(self, row: JobRow) -> None:
        """Take a row that a command or a page has read."""
        self._changed(self.model.put([row]))

    def _changed(self, change: Change) -> None:
        for screen in self._fronts():
            screen.jobs_changed(change)

    def _tick(self) -> None:
        if self._said[0] and self.now() >= self._said_until:
            self._said = ("", "text")
            self._show_bars()
        for screen in self._fronts():
            if screen.is_current:
                screen.tick(self.now())

    # What is shown.

    def say(self, text: str, tone: str = "text") -> None:
        """Show a line for a few seconds."""
        self._said, self._said_until = (text, tone), self.now() + SAID_FOR
        self._show_bars()

    def notice(self) -> tuple[str, str, str]:
        """Return symbol, text and tone of the line above the keys; empty where there is nothing to tell."""
        text, tone = self._said
        if text:
            return "✓" if tone == "good" else "!", text, tone
        for trouble in self.troubles.values():
            return "✗", trouble, "bad"
        return "", "", "text"

    def _show_bars(self) -> None:
        for screen in self._fronts():
            screen.refresh_bars()

    def _fronts(self) -> list[Front]:
        return [screen for screen in self.screen_stack if isinstance(screen, Front)]

    def _job_screen(self) -> JobScreen | None:
        from tui.screens.job import JobScreen

        return next((screen for screen in self.screen_stack if isinstance(screen, JobScreen)), None)

    # What the user wishes.

    def open_job(self, job: str, *, log: bool = False) -> None:
        """Show the page of a job."""
        from tui.page import JobPage
        from tui.screens.job import JobScreen

        self.push_screen(JobScreen(job, JobPage(self.model.rows.get(job)), log=log))

    def close_job(self) -> None:
        """Go back to the jobs."""
        while len(self.screen_stack) > 1:
            self.pop_screen()
        for source in ("job", "log"):
            self.troubles.pop(source, None)

    def _open_wanted(self) -> None:
        if self._wanted is None:
            return
        job = self.model.find(self._wanted)
        if job is not None:
            self._wanted = None
            self.open_job(job)
        elif self.listed:
            self.say(f"There is no job “{clean(self._wanted)}”. These are the jobs that there are.", "warn")
            self._wanted = None

    def ask_cancel(self, row: JobRow | None) -> None:
        """Ask whether to cancel a job, and do it."""
        if row is None:
            return
        if not may_cancel(row):
            self.say(f"{clean(row.name)} is {look_of(row.state).label} already: there is nothing to cancel.", "warn")
            return
        from tui.questions import cancel_question

        self._ask(cancel_question(row), row, lambda client: client.cancel(row.id), "is being cancelled.")

    def ask_retry(self, row: JobRow | None) -> None:
        """Ask whether to run a finished job again, and do it."""
        if row is None:
            return
        if not may_retry(row):
            state = look_of(row.state).label
            self.say(f"{clean(row.name)} is {state}: only a failed or cancelled job runs again.", "warn")
            return
        from tui.questions import retry_question

        self._ask(retry_question(row), row, lambda client: client.retry(row.id), "is queued again.")

    def ask_approve(self, row: JobRow | None) -> None:
        """Ask whether to approve a job's plan, and do it."""
        if row is None or not may_approve(row):
            return
        from tui.questions import approve_question

        self._ask(approve_question(row), row, lambda client: client.approve(row.id), "is approved.")

    def _ask(self, question: Question, row: JobRow, call: Callable[[Client], Awaitable[JobRow]], done: str) -> None:
        from tui.screens.confirm import ConfirmScreen

        if self.read_only:
            self.say("This is a read-only view: it changes nothing.", "warn")
            return

        def answer(yes: bool | None) -> None:
            if yes:
                self.run_worker(self._command(call, f"{clean(row.name)} {done}"), group="commands")

        self.push_screen(ConfirmScreen(question), answer)

    async def _command(self, call: Callable[[Client], Awaitable[JobRow]], done: str) -> None:
        if self.client is None:
            self.post_message(messages.Declined("The service is not reached yet. Try again in a moment."))
            return
        try:
            self.post_message(messages.Answered(done, await call(self.client)))
        except Exception as error:  # noqa: BLE001  # told to whoever asked
            self.post_message(messages.Declined(explain(error)))

    def action_start_worker(self) -> None:
        """Start a worker if jobs wait for one."""
        if self.client is not None and not self.read_only:
            self.run_worker(self._ensure_worker(self.client), group="ensure", exclusive=True)

    async def _ensure_worker(self, client: Client) -> None:
        try:
            status = await client.ensure_worker()
        except Exception as error:  # noqa: BLE001  # told; w tries again
            self.post_message(messages.Declined(f"No worker could be started: {explain(error)}"))
            return
        self.post_message(messages.WorkerSeen(status))
        if not status.alive:
            self.post_message(messages.Answered("A worker is being started."))

    def action_reread(self) -> None:
        """Read all jobs again."""
        if self._link is not None and self.client is not None:
            self.run_worker(self._reread(self._link), group="reread", exclusive=True)

    async def _reread(self, link: Link) -> None:
        try:
            await link.relist()
        except Exception as error:  # noqa: BLE001  # told to whoever asked
            self.post_message(messages.Declined(explain(error)))

    def action_help(self) -> None:
        """Show all keys."""
        from tui.screens.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())

    def action_leave(self) -> None:
        """Quit, and say what goes on."""
        from tui.questions import quit_words

        self.exit(message=quit_words(self.model.live) or None)


def run(open_client: OpenClient, first_paint: FirstPaint, *, job: str | None = None, read_only: bool = False) -> None:
    """Show the terminal UI until the user quits.

    `first_paint` returns rows quickly and blocking, before the first frame; `open_client` is awaited after it. With
    `job` (an id, a name or the beginning of one) that job's page opens at once.
    """
    AinfinityApp(open_client, first_paint, job=job, read_only=read_only).run()

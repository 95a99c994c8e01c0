"""One job as its page knows it: the row, its details, events and curves, folded from what the client yields. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from ainfinity.schema.event import Event, EventType
from ainfinity.schema.states import JobState
from ainfinity.schema.views import JobDetail, JobRow, MetricPoint
from tui.advice import advice
from tui.format import finite
from tui.model import newer
from tui.narrate import mapping, text_of
from tui.series import Series

#: The metric that the chart shows.
LOSS: Final = "loss"
_MAX_EVENTS: Final = 5000


class Sample(NamedTuple):
    """The model's answers to one prompt before and after training; `after` is empty until it was asked again."""

    prompt: str
    before: str
    after: str


class Fault(NamedTuple):
    """Why a job failed and what to do about it."""

    code: str
    message: str
    hint: str


class JobPage:
    """Everything that the page shows, whatever part of it has arrived."""

    def __init__(self, row: JobRow | None = None) -> None:
        self.row = row
        self.detail: JobDetail | None = None
        self.events: list[Event] = []
        self.loss = Series()
        self.held_out = Series()
        self.last_point: tuple[int, int] = (0, -1)
        self._seq = 0

    @property
    def cursor(self) -> int:
        """The `seq` of the newest event taken."""
        return self._seq

    def take_row(self, row: JobRow) -> None:
        """Take what the feed says of the job."""
        self.row = row if self.row is None else newer(self.row, row)

    def take_detail(self, detail: JobDetail) -> None:
        """Take a fresh reading of the job."""
        self.take_row(detail.job)
        self.detail = detail
        if not self.held_out.xs:
            self._take_evals(mapping(detail.result.get(key)) for key in ("eval_first", "eval_last"))

    def take_events(self, events: Iterable[Event]) -> list[Event]:
        """Append events after the last one taken, and return those; what came before is passed over."""
        fresh: list[Event] = []
        for event in events:
            if event.seq > self._seq:
                self._seq = event.seq
                fresh.append(event)
        self.events.extend(fresh)
        del self.events[:-_MAX_EVENTS]
        self._take_evals(mapping(event.data) for event in fresh if event.type == EventType.TRAINER_EVAL)
        return fresh

    def take_points(self, points: Sequence[MetricPoint]) -> None:
        """Append metrics, which must follow those taken before."""
        if not points:
            return
        self.loss.extend((point.step, point.values.get(LOSS)) for point in points if LOSS in point.values)
        self.last_point = points[-1].attempt, points[-1].step

    def _take_evals(self, evals: Iterable[dict[str, Any]]) -> None:
        for data in evals:
            step = finite(data.get("step"))
            if step is not None and finite(data.get("loss")) is not None:
                self.held_out.extend([(step, data["loss"])])

    @property
    def outcome(self) -> tuple[float | None, float | None]:
        """Held-out loss before and after training."""
        finished = mapping(self._result.get("finished"))
        before, after = finite(finished.get("eval_before")), finite(finished.get("eval_after"))
        ys = self.held_out.ys
        if before is None and ys:
            before = ys[0]
        if after is None and len(ys) > 1:
            after = ys[-1]
        return before, after

    @property
    def export(self) -> tuple[str, int | None]:
        """Where the trained adapter or model lies, and its size in bytes where that is known."""
        for artifact in reversed(self.detail.artifacts if self.detail else ()):
            if artifact.kind in ("adapter", "model"):
                return text_of(artifact.path), artifact.size
        return text_of(mapping(self._result.get("finished")).get("output")), None

    @property
    def samples(self) -> list[Sample]:
        """The first and the last answer to each prompt, in the order in which they were first asked."""
        found: dict[str, Sample] = {}
        for event in self.events:
            if event.type != EventType.TRAINER_SAMPLE:
                continue
            data = mapping(event.data)
            prompt, answer = str(data.get("prompt", "")), str(data.get("answer", ""))
            first = found.get(prompt)
            found[prompt] = Sample(prompt, answer, "") if first is None else first._replace(after=answer)
        return list(found.values())

    @property
    def fault(self) -> Fault | None:
        """Why the job failed; None where it did not."""
        row = self.row
        if row is None or row.state != JobState.FAILED:
            return None
        return Fault(text_of(row.error_code) or "failed", row.error_message, self._hint() or advice(row.error_code))

    @property
    def checkpoint_step(self) -> int | None:
        """The step of the newest checkpoint that was reported."""
        steps = (
            finite(mapping(event.data).get("step"))
            for event in reversed(self.events)
            if event.type in (EventType.TRAINER_CHECKPOINT, EventType.TRAINER_STOPPED)
        )
        return next((int(step) for step in steps if step is not None), None)

    @property
    def _result(self) -> dict[str, Any]:
        return self.detail.result if self.detail else {}

    def _hint(self) -> str:
        for event in reversed(self.events):
            if event.type == EventType.TRAINER_FAILED:
                return text_of(mapping(event.data).get("hint"))
        return ""

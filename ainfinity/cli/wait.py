"""`ainfinity wait` and `launch --wait`: progress on stderr until a job is over, and its end as the exit code."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TextIO

from ainfinity.cli.events import summary
from ainfinity.cli.output import (
    cost_so_far,
    duration,
    harmless,
    moment,
    number,
    per_hour,
    say,
    shorten,
    write_json,
)
from ainfinity.cli.session import on_interrupt, with_client
from ainfinity.core.constants import EXIT_CANCELLED, EXIT_JOB_FAILED, EXIT_NOT_FINISHED, EXIT_OK
from ainfinity.core.exceptions import NotFound
from ainfinity.schema.event import EventType
from ainfinity.schema.states import JOB_TERMINAL, JobState

if TYPE_CHECKING:
    from ainfinity.client.port import Client
    from ainfinity.schema.views import FeedItem, JobDetail, JobRow

EXIT_OF: Final[dict[str, int]] = {
    JobState.SUCCEEDED: EXIT_OK,
    JobState.FAILED: EXIT_JOB_FAILED,
    JobState.CANCELLED: EXIT_CANCELLED,
    JobState.REJECTED: EXIT_CANCELLED,
}
#: Without a terminal, seconds between two lines that differ in progress alone.
_INTERVAL: Final = 5.0
_TOLD: Final = frozenset(
    {
        EventType.TRAINER_EVAL,
        EventType.TRAINER_WARNING,
        EventType.TRAINER_STOPPED,
        EventType.ATTEMPT_LOST,
        EventType.ATTEMPT_GIVEN,
        EventType.ATTEMPT_STUCK,
        EventType.ATTEMPT_UNSTUCK,
        EventType.ATTEMPT_KEPT,
    }
)


def wait_for_job(job: str, timeout: float | None, *, as_json: bool) -> int:
    """Show the progress of a job until it is over, for `timeout` seconds at most; return the exit code."""

    async def body(client: Client) -> int:
        row = (await client.get_job(job)).job
        on_interrupt(f"Stopped watching; the job goes on. Watch it again: `ainfinity wait {row.name}`.")
        return await follow_to_end(client, row, timeout=timeout, as_json=as_json)

    return with_client(body)


async def follow_to_end(client: Client, row: JobRow, *, timeout: float | None = None, as_json: bool = False) -> int:
    """Show progress from `row` on until the job is over; tell how it ended; return the exit code."""
    line = ProgressLine(sys.stderr)
    line.show(row)
    try:
        row = await _watch(client, row, line, timeout)
    finally:
        line.close()
    detail = await client.get_job(row.id)
    row = detail.job
    if as_json:
        write_json(row)
    if row.state not in JOB_TERMINAL:
        say(f"{row.name} is not over: {row.state}. Wait on: `ainfinity wait {row.name}`.")
        return EXIT_NOT_FINISHED
    describe_end(detail)
    return EXIT_OF[row.state]


async def _watch(client: Client, row: JobRow, line: ProgressLine, timeout: float | None) -> JobRow:
    if row.state in JOB_TERMINAL:
        return row
    await client.ensure_worker()
    deadline = None if timeout is None else time.monotonic() + timeout
    feed = client.feed(row.seq, row.progress.rev)
    coming = asyncio.ensure_future(_next(feed))
    try:
        while row.state not in JOB_TERMINAL:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            done, _ = await asyncio.wait({coming}, timeout=left)
            if deadline is not None and time.monotonic() >= deadline:
                return row
            if not done:
                continue
            item = coming.result()
            if item is None:  # the feed ended: the service is closing
                return row
            coming = asyncio.ensure_future(_next(feed))
            row = _newer(row, item)
            for event in item.events:
                if event.job_id == row.id and event.type == EventType.DELETED:
                    raise NotFound(f"The job {row.name} was deleted.")
                if event.job_id == row.id and event.type in _TOLD:
                    line.tell(f"{row.name}  {summary(event)}")
            line.show(row)
        return row
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        closing: Any = getattr(feed, "aclose", None)
        if closing:
            await closing()


async def _next(feed: AsyncIterator[FeedItem]) -> FeedItem | None:
    return await anext(feed, None)


def _newer(row: JobRow, item: FeedItem) -> JobRow:
    row = next((other for other in item.jobs if other.id == row.id), row)
    progress = item.progress.get(row.id)
    return replace(row, progress=progress) if progress else row


class ProgressLine:
    """One line about a job: rewritten in place on a terminal, else a new one when it matters."""

    def __init__(self, stream: TextIO, *, interval: float = _INTERVAL) -> None:
        self._stream = stream
        self._interval = interval
        self._terminal = stream.isatty()
        self._last = ""
        self._last_at = 0.0
        self._last_state: str = ""

    def show(self, row: JobRow) -> None:
        """Show where the job stands."""
        text = describe_progress(row)
        if text == self._last:
            return
        now = time.monotonic()
        if self._terminal:
            import shutil

            self._stream.write(f"\r{shorten(text, shutil.get_terminal_size().columns - 1)}\x1b[K")
            self._stream.flush()
        elif row.state != self._last_state or now - self._last_at >= self._interval:
            say(text)
            self._last_at = now
        else:
            return
        self._last, self._last_state = text, row.state

    def tell(self, text: str) -> None:
        """Show a line that stays."""
        if self._terminal:
            self._stream.write("\r\x1b[K")
        say(text)
        if self._terminal:
            self._stream.write(self._last)
            self._stream.flush()

    def close(self) -> None:
        """End the line."""
        if self._terminal and self._last:
            self._stream.write("\n")
            self._stream.flush()


def describe_progress(row: JobRow) -> str:
    """Return where a job stands, on one line."""
    progress = row.progress
    parts = [row.name, row.state.replace("_", " ") + (" (no contact)" if row.stale_since is not None else "")]
    if row.state == JobState.AWAITING_APPROVAL:
        parts.append(f"approve it: `ainfinity approve {row.name}`")
    if progress.total_steps:
        percent = 100 * progress.step // progress.total_steps
        parts.append(f"step {progress.step}/{progress.total_steps} ({percent} %)")
    if progress.loss is not None:
        parts.append(f"loss {number(progress.loss)}")
    if progress.tokens_per_second is not None:
        parts.append(f"{number(progress.tokens_per_second, ',.0f')} tokens/s")
    if progress.eta_seconds is not None and row.state == JobState.RUNNING:
        parts.append(f"{duration(progress.eta_seconds)} left")
    if row.price_per_hour:
        parts.append(per_hour(row.price_per_hour))
    if row.kept_until is not None:
        parts.append(f"ended; machine kept until {moment(row.kept_until)}: `ainfinity teardown {row.name}`")
    return "  ".join(parts)


def describe_end(detail: JobDetail) -> None:
    """Tell how a job ended, what it made, and what to do next."""
    row = detail.job
    took = f" after {duration(row.finished_at - row.started_at)}" if row.finished_at and row.started_at else ""
    cost = cost_so_far(row.cost, row.price_per_hour)
    paid = "" if cost in ("-", "free") else f" Cost: {cost}."
    say(f"{row.name} {row.state}{took} ({moment(row.finished_at)}).{paid}")
    if before_after := held_out_losses(detail):
        say(f"Held-out loss: {before_after}")
    if row.state == JobState.SUCCEEDED:
        for artifact in detail.artifacts:
            if artifact.kind in ("adapter", "model"):
                say(f"The {artifact.kind} is in {artifact.path}")
    elif row.state == JobState.FAILED:
        say(f"{row.error_code}: {harmless(row.error_message)}" if row.error_code else harmless(row.error_message))
        say(f"Its log: `ainfinity logs {row.name}`. Again, from its checkpoint: `ainfinity retry {row.name}`.")
    elif row.error_message:
        say(harmless(row.error_message))


def held_out_losses(detail: JobDetail) -> str:
    """Return `3.21 before, 2.51 after`, or "" where nothing was held out."""
    found: list[dict[str, Any]] = [detail.result.get(key) or {} for key in ("eval_first", "eval_last")]
    before, after = (values.get("loss") for values in found)
    if before is None or after is None:
        return ""
    return f"{number(before)} before, {number(after)} after"

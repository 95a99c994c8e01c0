"""What workers tell the app. Workers only post these; the handlers alone own state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from ainfinity.client.port import Client, FeedItem, LogChunk
    from ainfinity.schema.event import Event
    from ainfinity.schema.views import JobDetail, JobRow, MetricPoint, WorkerStatus


class Opened(Message):
    """The client is open."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.client = client


class Listed(Message):
    """All jobs were read."""

    def __init__(self, rows: Sequence[JobRow]) -> None:
        super().__init__()
        self.rows = rows


class Fed(Message):
    """The feed yielded."""

    def __init__(self, item: FeedItem) -> None:
        super().__init__()
        self.item = item


class WorkerSeen(Message):
    """Whether a worker is alive."""

    def __init__(self, status: WorkerStatus) -> None:
        super().__init__()
        self.status = status


class Trouble(Message):
    """Something the app depends on does not answer; it is tried again. Empty text: it answers again."""

    def __init__(self, source: str, text: str = "") -> None:
        super().__init__()
        self.source = source
        self.text = text


class Answered(Message):
    """A command was carried out; `text` says what that means."""

    def __init__(self, text: str, row: JobRow | None = None) -> None:
        super().__init__()
        self.text = text
        self.row = row


class Declined(Message):
    """A command was refused or failed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class Gone(Message):
    """A job's record no longer exists."""

    def __init__(self, job: str) -> None:
        super().__init__()
        self.job = job


class Detailed(Message):
    """A job was read in full."""

    def __init__(self, detail: JobDetail) -> None:
        super().__init__()
        self.detail = detail


class Happened(Message):
    """Events of one job."""

    def __init__(self, events: Sequence[Event]) -> None:
        super().__init__()
        self.events = events


class Measured(Message):
    """Metrics of one job, after those told before."""

    def __init__(self, points: Sequence[MetricPoint]) -> None:
        super().__init__()
        self.points = points


class Logged(Message):
    """Log lines of one job. None: what was shown is read again from its tail."""

    def __init__(self, chunk: LogChunk | None) -> None:
        super().__init__()
        self.chunk = chunk

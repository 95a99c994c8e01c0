"""What fronts ask for and are shown. Published models: `--json` output is validated against them.

Times are Unix seconds (UTC). Slotted dataclasses and not pydantic models, because `list`, completion and the first
paint of the terminal UI make thousands of them without importing pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ainfinity.schema.event import Event


@dataclass(frozen=True, slots=True)
class Progress:
    """The latest of a job's running numbers. `rev` rises with every change anywhere in the store."""

    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    lr: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    updated_at: float | None = None
    rev: int = 0


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job in a list."""

    id: str
    name: str
    state: str
    desired: str
    owner: str
    model: str
    infra: str
    gpus: str
    priority: int
    tags: tuple[str, ...]
    note: str
    attempt: int
    submitted_at: float
    started_at: float | None
    finished_at: float | None
    stale_since: float | None
    error_code: str
    error_message: str
    seq: int
    progress: Progress = field(default_factory=Progress)
    #: Dollars so far, of all attempts, as of the reading; None where some of it is unknown.
    cost: float | None = None
    #: Dollars an hour of the newest attempt's machines; None where that is unknown.
    price_per_hour: float | None = None
    #: Until when the machine of an attempt that ended is kept.
    kept_until: float | None = None
    #: Since when the newest attempt gives no sign, though there is contact.
    stuck_since: float | None = None
    #: "", or of a job that was started with plain SkyPilot `cluster:NAME` or `managed:ID`; read-only until `claimed`.
    origin: str = ""
    claimed: bool = False


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Which jobs, newest first."""

    states: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    owner: str = ""
    text: str = ""
    limit: int | None = 50
    #: Only jobs submitted before this (time, id): the last row of the page before.
    before: tuple[float, str] | None = None


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One launch of a job."""

    job_id: str
    number: int
    name: str
    state: str
    backend: str
    handle: str
    intent_at: float
    started_at: float | None
    finished_at: float | None
    exit_code: int | None
    outcome: str
    reason: str
    resume_step: int | None
    provenance: dict[str, Any]
    #: Dollars an hour for all its nodes, of what was `given`; None where that is unknown.
    price_per_hour: float | None = None
    given: str = ""
    #: Dollars so far or in all; None where that is unknown.
    cost: float | None = None
    #: How often the backend itself moved it to a new machine.
    recoveries: int = 0
    #: When it ends itself, on its own machine too.
    deadline: float | None = None
    #: Until when its machine stays though it ends, and once it has ended why.
    keep_until: float | None = None
    keep_reason: str = ""
    #: When its machine first cost.
    paid_from: float | None = None


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    """A file or folder that a job made and that outlives its machine."""

    job_id: str
    attempt: int
    kind: str
    path: str
    size: int
    sha256: str
    at: float
    step: int | None = None


@dataclass(frozen=True, slots=True)
class JobDetail:
    """Everything about one job that fits on a page."""

    job: JobRow
    spec: dict[str, Any]
    plan: dict[str, Any] | None
    plan_hash: str
    attempts: tuple[AttemptRow, ...]
    artifacts: tuple[ArtifactRow, ...]
    #: What the trainer said of itself: `started`, `eval_first`, `eval_last`, `finished`.
    result: dict[str, Any]
    #: Data hash, git commit, dirty or not, and the redacted diff.
    provenance: dict[str, Any] = field(default_factory=dict[str, Any])
    #: The share of the paid time that went into steps that count, 0 to 1; None while there are none.
    goodput: float | None = None


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One optimizer step as the trainer reported it."""

    attempt: int
    step: int
    at: float
    values: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """Who carries wishes out now. `alive` is whether a live lease exists."""

    alive: bool
    holder: str
    epoch: int
    expires_at: float
    live_jobs: int
    version: str = ""
    #: Notices that it has still to tell; it stays, and one is started, for these too.
    owed: int = 0
    #: Machines that no job owns, which it sees to likewise.
    orphans: int = 0


@dataclass(frozen=True, slots=True)
class PlanView:
    """A plan shown before a launch. `steps` and prices are None where they are unknown."""

    plan_hash: str
    plan: Mapping[str, Any]
    spec: Mapping[str, Any]
    needs_approval: bool
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Complete log lines of one attempt. `offset` is the byte offset after them: the place to go on from."""

    attempt: int
    lines: Sequence[str]
    offset: int
    #: Whether nothing more will come (the attempt is over and all was read).
    ended: bool


@dataclass(frozen=True, slots=True)
class FeedItem:
    """What changed since the last item: new events, and the rows and progress of the jobs concerned.

    `cursor` and `rev` are the place to go on from. A front replaces its rows by these; it needs no other reading.
    """

    cursor: int
    rev: int
    events: tuple[Event, ...] = ()
    jobs: tuple[JobRow, ...] = ()
    progress: Mapping[str, Progress] = field(default_factory=dict[str, Progress])


@dataclass(frozen=True, slots=True)
class Notice:
    """A delivery that is owed: one event to be told at one place."""

    id: int
    place: str
    job_id: str
    event: Event
    tries: int

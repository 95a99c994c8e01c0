"""The tables. Times are Unix seconds (UTC), JSON columns hold plain values, nothing here holds a secret's value.

SQLModel's table models do not validate: what is written comes from `schema` and `domain`. Hot paths use Core
statements on `core(name)`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import JSON, Column, Index, Table, UniqueConstraint
from sqlmodel import Field, SQLModel


def core(name: str) -> Table:
    """Return the Core table of that name, for statements on hot paths."""
    return SQLModel.metadata.tables[name]


def _json(default: Any = None) -> Any:
    return Field(default_factory=default or dict, sa_column=Column(JSON, nullable=False))


class Meta(SQLModel, table=True):
    """Facts about this installation, by name: `installation` is its random id."""

    name: str = Field(primary_key=True)
    value: str


class User(SQLModel, table=True):
    """A person. The embedded user is admin."""

    __tablename__: ClassVar[Any] = "user_account"
    id: str = Field(primary_key=True)
    login: str = Field(unique=True)
    name: str = ""
    created_at: float
    disabled: bool = False


class Team(SQLModel, table=True):
    """A group of people who share jobs and budgets."""

    id: str = Field(primary_key=True)
    name: str = Field(unique=True)
    created_at: float


class Role(SQLModel, table=True):
    """What a user may do in a team: viewer, launcher, approver or admin."""

    __tablename__: ClassVar[Any] = "role_grant"
    user_id: str = Field(primary_key=True, foreign_key="user_account.id")
    team_id: str = Field(primary_key=True, foreign_key="team.id")
    role: str


class Identity(SQLModel, table=True):
    """How an outside system names a user: `slack` T1/U2, `oidc` issuer/subject."""

    __tablename__: ClassVar[Any] = "outside_identity"
    __table_args__: ClassVar[Any] = (UniqueConstraint("kind", "external_id"),)
    id: str = Field(primary_key=True)
    user_id: str = Field(foreign_key="user_account.id", index=True)
    kind: str
    external_id: str
    created_at: float


class Group(SQLModel, table=True):
    """Jobs that are planned, priced and ranked as one."""

    __tablename__: ClassVar[Any] = "job_group"
    id: str = Field(primary_key=True)
    name: str
    owner: str
    created_at: float


class Job(SQLModel, table=True):
    """A job: what was asked for, and the fold of its events. `seq` is that of the last event that changed the row."""

    __tablename__: ClassVar[Any] = "job"
    __table_args__: ClassVar[Any] = (
        Index("ix_job_submitted", "submitted_at", "id"),
        Index("ix_job_team_submitted", "team", "submitted_at", "id"),
        Index("ix_job_state", "state", "submitted_at"),
        Index("ix_job_name", "name", "submitted_at"),
        Index("ix_job_seq", "seq"),
    )
    id: str = Field(primary_key=True)
    key: str = Field(unique=True)
    key_sha256: str = ""
    name: str
    owner: str
    team: str = ""
    group_id: str | None = Field(default=None, foreign_key="job_group.id")
    model: str
    infra: str
    gpus: str = ""
    slots: int = 1
    priority: int = 0
    tags: list[str] = _json(list)
    note: str = ""
    notify: str = "finish"
    # From here on, but for `spec`, the fold of the events.
    state: str
    desired: str
    attempt: int = 0
    plan_hash: str = ""
    approved_hash: str = ""
    submitted_at: float
    queued_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    stale_since: float | None = None
    error_code: str = ""
    error_message: str = ""
    failures: int = 0
    losses: int = 0
    checkpoint_step: int | None = None
    resume_step: int | None = None
    origin: str = ""
    claimed: bool = False
    price_per_hour: float | None = None
    priced_from: float | None = None
    spent: float | None = 0.0
    kept_until: float | None = None
    stuck_since: float | None = None
    seq: int = 0
    # The large ones stand last, because SQLite reads its way past whatever stands before a column.
    spec: dict[str, Any] = _json()
    result: dict[str, Any] = _json()


class Attempt(SQLModel, table=True):
    """One launch of a job; the fold of its events, and how far its output has been taken in."""

    __tablename__: ClassVar[Any] = "attempt"
    __table_args__: ClassVar[Any] = (Index("ix_attempt_seq", "seq"),)
    job_id: str = Field(primary_key=True, foreign_key="job.id")
    number: int = Field(primary_key=True)
    name: str = Field(unique=True)
    state: str
    backend: str = ""
    handle: str = ""
    intent_at: float = 0.0
    calls: int = 0
    started_at: float | None = None
    stopping_at: float | None = None
    finished_at: float | None = None
    exit_code: int | None = None
    outcome: str = ""
    code: str = ""
    reason: str = ""
    resume_step: int | None = None
    deadline: float | None = None
    trainer_end: str = ""
    trainer_code: str = ""
    trainer_message: str = ""
    price_per_hour: float | None = None
    given: str = ""
    recoveries: int = 0
    paid_from: float | None = None
    priced_from: float | None = None
    spent: float | None = 0.0
    keep_until: float | None = None
    keep_reason: str = ""
    stuck_since: float | None = None
    fetching_since: float | None = None
    extend_to: float | None = None
    provenance: dict[str, Any] = _json()
    seq: int = 0
    # Not of the fold: the byte offset and the trainer's `seq` up to which output was taken in.
    log_offset: int = 0
    line_seq: int = 0


class PlanRow(SQLModel, table=True):
    """A plan that was made for a job."""

    __tablename__: ClassVar[Any] = "plan"
    job_id: str = Field(primary_key=True, foreign_key="job.id")
    plan_hash: str = Field(primary_key=True)
    plan: dict[str, Any] = _json()
    at: float


class EventRow(SQLModel, table=True):
    """The one table that orders the world. Append-only; `seq` order is commit order."""

    __tablename__: ClassVar[Any] = "event"
    __table_args__: ClassVar[Any] = (Index("ix_event_job", "job_id", "seq"), {"sqlite_autoincrement": True})
    seq: int | None = Field(default=None, primary_key=True)
    job_id: str
    attempt: int = 0
    type: str
    at: float
    actor: str
    data: dict[str, Any] = _json()


class ProgressRow(SQLModel, table=True):
    """The latest running numbers of a job. Level, not history; `rev` rises over all jobs."""

    __tablename__: ClassVar[Any] = "progress"
    __table_args__: ClassVar[Any] = (Index("ix_progress_rev", "rev"),)
    job_id: str = Field(primary_key=True, foreign_key="job.id")
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    lr: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    updated_at: float | None = None
    rev: int = 0


class MetricChunk(SQLModel, table=True):
    """Some reported steps of an attempt, in columns; `last_step` is the greatest. Written by `store.metrics` alone."""

    __tablename__: ClassVar[Any] = "metric_chunk"
    __table_args__: ClassVar[Any] = (Index("ix_metric_chunk_place", "job_id", "attempt", "first_seq"),)
    id: int | None = Field(default=None, primary_key=True)
    job_id: str = Field(foreign_key="job.id")
    attempt: int
    first_seq: int
    last_step: int
    points: int
    columns: dict[str, Any] = _json()


class ArtifactEntry(SQLModel, table=True):
    """A file or folder that a job made and that outlives its machine."""

    __tablename__: ClassVar[Any] = "artifact"
    __table_args__: ClassVar[Any] = (UniqueConstraint("job_id", "attempt", "kind", "path"),)
    id: int | None = Field(default=None, primary_key=True)
    job_id: str = Field(foreign_key="job.id")
    attempt: int
    kind: str
    path: str
    size: int = 0
    sha256: str = ""
    step: int | None = None
    at: float


class Orphan(SQLModel, table=True):
    """A machine with this installation's name that no live job owns, and what its owner answered about it."""

    __tablename__: ClassVar[Any] = "orphan"
    name: str = Field(primary_key=True)
    backend: str
    kind: str
    first_seen: float
    last_seen: float
    launched_at: float | None = None
    price_per_hour: float | None = None
    given: str = ""
    answer: str = ""
    answered_by: str = ""
    told: bool = False


class Dataset(SQLModel, table=True):
    """Training data by its content. `places` are where its bytes lie already."""

    __tablename__: ClassVar[Any] = "dataset"
    sha256: str = Field(primary_key=True)
    name: str = Field(unique=True)
    size: int
    rows: int
    added_at: float
    places: list[str] = _json(list)


class Delivery(SQLModel, table=True):
    """The outbox: one event owed to one place, written in the transaction of the event."""

    __tablename__: ClassVar[Any] = "delivery"
    __table_args__: ClassVar[Any] = (
        UniqueConstraint("event_seq", "place"),
        Index("ix_delivery_owed", "state", "due_at"),
        # Whoever settles late a delivery whose job was deleted must not settle another one.
        {"sqlite_autoincrement": True},
    )
    id: int | None = Field(default=None, primary_key=True)
    event_seq: int
    job_id: str
    place: str
    state: str = "owed"
    tries: int = 0
    due_at: float
    claimed_until: float | None = None
    detail: str = ""


class Lease(SQLModel, table=True):
    """Who may act. `epoch` is the fencing number that voids a late owner."""

    __tablename__: ClassVar[Any] = "lease"
    name: str = Field(primary_key=True)
    holder: str = ""
    epoch: int = 0
    expires_at: float = 0.0
    info: str = ""


class SecretName(SQLModel, table=True):
    """That a secret of this name exists for an owner; its value lives elsewhere."""

    __tablename__: ClassVar[Any] = "secret_name"
    owner: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    updated_at: float


class Audit(SQLModel, table=True):
    """Who did what, when, from which front."""

    __tablename__: ClassVar[Any] = "audit"
    id: int | None = Field(default=None, primary_key=True)
    at: float
    actor: str
    action: str
    subject: str = ""
    detail: dict[str, Any] = _json()

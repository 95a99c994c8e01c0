"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=nullable)


def _whole(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=nullable)


def _real(name: str, *, nullable: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Float(), nullable=nullable)


def _json(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.JSON(), nullable=False)


def upgrade() -> None:
    _create_people()
    _create_records_of_people()
    _create_jobs()
    _create_attempts()
    _create_event_log()
    _create_numbers()


def _create_people() -> None:
    op.create_table(
        "meta",
        _text("name"),
        _text("value"),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "user_account",
        _text("id"),
        _text("login"),
        _text("name"),
        _real("created_at"),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("login"),
    )
    op.create_table(
        "team",
        _text("id"),
        _text("name"),
        _real("created_at"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "role_grant",
        _text("user_id"),
        _text("team_id"),
        _text("role"),
        sa.PrimaryKeyConstraint("user_id", "team_id"),
        sa.ForeignKeyConstraint(["user_id"], ["user_account.id"]),
        sa.ForeignKeyConstraint(["team_id"], ["team.id"]),
    )
    op.create_table(
        "outside_identity",
        _text("id"),
        _text("user_id"),
        _text("kind"),
        _text("external_id"),
        _real("created_at"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("kind", "external_id"),
        sa.ForeignKeyConstraint(["user_id"], ["user_account.id"]),
    )
    op.create_index("ix_outside_identity_user_id", "outside_identity", ["user_id"])


def _create_records_of_people() -> None:
    op.create_table(
        "secret_name",
        _text("owner"),
        _text("name"),
        _real("updated_at"),
        sa.PrimaryKeyConstraint("owner", "name"),
    )
    op.create_table(
        "audit",
        _whole("id"),
        _real("at"),
        _text("actor"),
        _text("action"),
        _text("subject"),
        _json("detail"),
        sa.PrimaryKeyConstraint("id"),
    )


def _create_jobs() -> None:
    op.create_table(
        "job_group",
        _text("id"),
        _text("name"),
        _text("owner"),
        _real("created_at"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "job",
        _text("id"),
        _text("key"),
        _text("key_sha256"),
        _text("name"),
        _text("owner"),
        _text("team"),
        _text("group_id", nullable=True),
        _text("model"),
        _text("infra"),
        _text("gpus"),
        _whole("slots"),
        _whole("priority"),
        _json("tags"),
        _text("note"),
        _text("notify"),
        _text("state"),
        _text("desired"),
        _whole("attempt"),
        _text("plan_hash"),
        _text("approved_hash"),
        _real("submitted_at"),
        _real("queued_at", nullable=True),
        _real("started_at", nullable=True),
        _real("finished_at", nullable=True),
        _real("stale_since", nullable=True),
        _text("error_code"),
        _text("error_message"),
        _whole("failures"),
        _whole("losses"),
        _whole("checkpoint_step", nullable=True),
        _whole("resume_step", nullable=True),
        _whole("seq"),
        _json("spec"),
        _json("result"),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(["group_id"], ["job_group.id"]),
        sa.UniqueConstraint("key"),
    )
    op.create_index("ix_job_name", "job", ["name", "submitted_at"])
    op.create_index("ix_job_seq", "job", ["seq"])
    op.create_index("ix_job_state", "job", ["state", "submitted_at"])
    op.create_index("ix_job_submitted", "job", ["submitted_at", "id"])
    op.create_index("ix_job_team_submitted", "job", ["team", "submitted_at", "id"])


def _create_attempts() -> None:
    op.create_table(
        "attempt",
        _text("job_id"),
        _whole("number"),
        _text("name"),
        _text("state"),
        _text("backend"),
        _text("handle"),
        _real("intent_at"),
        _whole("calls"),
        _real("started_at", nullable=True),
        _real("stopping_at", nullable=True),
        _real("finished_at", nullable=True),
        _whole("exit_code", nullable=True),
        _text("outcome"),
        _text("code"),
        _text("reason"),
        _whole("resume_step", nullable=True),
        _real("deadline", nullable=True),
        _text("trainer_end"),
        _text("trainer_code"),
        _text("trainer_message"),
        _json("provenance"),
        _whole("seq"),
        _whole("log_offset"),
        _whole("line_seq"),
        sa.PrimaryKeyConstraint("job_id", "number"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"]),
        sa.UniqueConstraint("name"),
    )
    op.create_index("ix_attempt_seq", "attempt", ["seq"])

    op.create_table(
        "plan",
        _text("job_id"),
        _text("plan_hash"),
        _json("plan"),
        _real("at"),
        sa.PrimaryKeyConstraint("job_id", "plan_hash"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"]),
    )
    op.create_table(
        "artifact",
        _whole("id"),
        _text("job_id"),
        _whole("attempt"),
        _text("kind"),
        _text("path"),
        _whole("size"),
        _text("sha256"),
        _whole("step", nullable=True),
        _real("at"),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"]),
        sa.UniqueConstraint("job_id", "attempt", "kind", "path"),
    )


def _create_event_log() -> None:
    op.create_table(
        "event",
        _whole("seq"),
        _text("job_id"),
        _whole("attempt"),
        _text("type"),
        _real("at"),
        _text("actor"),
        _json("data"),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_event_job", "event", ["job_id", "seq"])

    op.create_table(
        "delivery",
        _whole("id"),
        _whole("event_seq"),
        _text("job_id"),
        _text("place"),
        _text("state"),
        _whole("tries"),
        _real("due_at"),
        _real("claimed_until", nullable=True),
        _text("detail"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("event_seq", "place"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_delivery_owed", "delivery", ["state", "due_at"])

    op.create_table(
        "lease",
        _text("name"),
        _text("holder"),
        _whole("epoch"),
        _real("expires_at"),
        _text("info"),
        sa.PrimaryKeyConstraint("name"),
    )


def _create_numbers() -> None:
    op.create_table(
        "progress",
        _text("job_id"),
        _whole("step"),
        _whole("total_steps"),
        _real("loss", nullable=True),
        _real("lr", nullable=True),
        _real("tokens_per_second", nullable=True),
        _real("eta_seconds", nullable=True),
        _real("updated_at", nullable=True),
        _whole("rev"),
        sa.PrimaryKeyConstraint("job_id"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"]),
    )
    op.create_index("ix_progress_rev", "progress", ["rev"])

    op.create_table(
        "metric_chunk",
        _whole("id"),
        _text("job_id"),
        _whole("attempt"),
        _whole("first_seq"),
        _whole("last_step"),
        _whole("points"),
        _json("columns"),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"]),
    )
    op.create_index("ix_metric_chunk_place", "metric_chunk", ["job_id", "attempt", "first_seq"])

"""Machines elsewhere: what they cost, how long they stay, which were found, and the data that was brought to them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

#: The first event of an attempt that tells of a machine.
_MACHINE = "('attempt.setting_up', 'attempt.running', 'attempt.recovering')"


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=False, server_default="")


def _whole(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False, server_default="0")


def _real(name: str, *, start: str | None = None) -> sa.Column[float]:
    return sa.Column(name, sa.Float(), nullable=True, server_default=start)


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false())


def upgrade() -> None:
    # Before the large columns of a row, because SQLite reads its way past whatever stands before a column.
    _add(
        "job",
        "seq",
        _text("origin"),
        _flag("claimed"),
        _real("price_per_hour"),
        _real("priced_from"),
        _real("spent", start="0"),
        _real("kept_until"),
        _real("stuck_since"),
    )
    _add(
        "attempt",
        "provenance",
        _real("price_per_hour"),
        _text("given"),
        _whole("recoveries"),
        _real("paid_from"),
        _real("priced_from"),
        _real("spent", start="0"),
        _real("keep_until"),
        _text("keep_reason"),
        _real("stuck_since"),
        _real("fetching_since"),
        _real("extend_to"),
    )
    _price_what_ran_here()
    _create_tables()


def _add(table: str, before: str, *columns: sa.Column[Any]) -> None:
    """Insert the columns in this order. Their defaults fill the rows that are there, and are dropped after that."""
    with op.batch_alter_table(table, recreate="always") as batch:
        for column in columns:
            batch.add_column(column, insert_before=before)
    with op.batch_alter_table(table, recreate="always") as batch:
        for column in columns:
            if column.server_default is not None:
                batch.alter_column(column.name, server_default=None)


def _price_what_ran_here() -> None:
    """Give the rows what their events fold to now: this machine costs nothing, from the first that was seen of it."""
    first = f"""
        SELECT min(event.at) FROM event
        WHERE event.job_id = attempt.job_id AND event.attempt = attempt.number AND event.type IN {_MACHINE}
    """  # constants only
    over = "attempt.state IN ('succeeded', 'failed', 'cancelled', 'lost')"
    op.execute("UPDATE attempt SET price_per_hour = 0.0 WHERE backend = 'local'")
    op.execute(f"UPDATE attempt SET paid_from = ({first})")
    op.execute(f"UPDATE attempt SET priced_from = paid_from WHERE NOT ({over})")
    newest = "attempt.job_id = job.id AND attempt.number = job.attempt"
    for name in ("price_per_hour", "priced_from"):
        op.execute(f"UPDATE job SET {name} = (SELECT attempt.{name} FROM attempt WHERE {newest})")


def _create_tables() -> None:
    op.create_table(
        "orphan",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("backend", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("first_seen", sa.Float(), nullable=False),
        sa.Column("last_seen", sa.Float(), nullable=False),
        sa.Column("launched_at", sa.Float(), nullable=True),
        sa.Column("price_per_hour", sa.Float(), nullable=True),
        sa.Column("given", sa.String(), nullable=False),
        sa.Column("answer", sa.String(), nullable=False),
        sa.Column("answered_by", sa.String(), nullable=False),
        sa.Column("told", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "dataset",
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("added_at", sa.Float(), nullable=False),
        sa.Column("places", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("sha256"),
        sa.UniqueConstraint("name"),
    )

"""The latest running numbers of each job. Level, not history: a front asks what changed after a `rev`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from ainfinity.schema.views import Progress
from ainfinity.store.tables import core

PROGRESS = core("progress")
META = core("meta")

#: What `rev` must stay above, because a row that had it was removed.
_FLOOR: Final = "progress_floor"

_FIELDS: Final = ("step", "total_steps", "loss", "lr", "tokens_per_second", "eta_seconds", "updated_at", "rev")
_LATEST = sa.select(
    sa.select(sa.func.max(PROGRESS.c.rev)).scalar_subquery().label("rev"),
    sa.select(META.c.value).where(META.c.name == _FLOOR).scalar_subquery().label("floor"),
)


def _upsert(insert: Any) -> Any:
    return insert.on_conflict_do_update(
        index_elements=["job_id"], set_={name: insert.excluded[name] for name in _FIELDS}
    )


_UPSERT: Final[Mapping[str, Any]] = {
    "sqlite": _upsert(sqlite.insert(PROGRESS)),
    "postgresql": _upsert(postgresql.insert(PROGRESS)),
}


def put(connection: Connection, job_id: str, progress: Progress) -> int:
    """Replace a job's progress and return its new `rev`; the one in `progress` does not count."""
    return put_many(connection, {job_id: progress})


def put_many(connection: Connection, found: Mapping[str, Progress]) -> int:
    """Replace the progress of many jobs and return the `rev` that they share."""
    if not found:
        return latest_rev(connection)
    rev = latest_rev(connection) + 1
    rows = [asdict(progress) | {"job_id": job_id, "rev": rev} for job_id, progress in found.items()]
    connection.execute(_UPSERT[connection.dialect.name], rows)
    return rev


def since(connection: Connection, rev: int) -> list[tuple[str, Progress]]:
    """Return (job id, progress) of what changed after `rev`, oldest change first."""
    statement = (
        sa.select(PROGRESS.c.job_id, *(PROGRESS.c[name] for name in _FIELDS))
        .where(PROGRESS.c.rev > rev)
        .order_by(PROGRESS.c.rev, PROGRESS.c.job_id)
    )
    return [(job_id, Progress(*values)) for job_id, *values in connection.execute(statement)]


def latest_rev(connection: Connection) -> int:
    """Return the newest `rev`, 0 before the first."""
    row = connection.execute(_LATEST).one()
    return max(row.rev or 0, int(row.floor or 0))


def forget(connection: Connection, job_id: str) -> None:
    """Remove a job's progress. No later `rev` falls back behind one that a front may have seen."""
    rev = latest_rev(connection)
    values = {"name": _FLOOR, "value": str(rev)}
    if not connection.execute(META.update().where(META.c.name == _FLOOR).values(values)).rowcount:
        connection.execute(META.insert().values(values))
    connection.execute(PROGRESS.delete().where(PROGRESS.c.job_id == job_id))

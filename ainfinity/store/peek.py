"""Fast reads for `list`, completion and the first paint: stdlib SQLite only, read-only, no SQLModel, no pydantic.

What fits a query is said by `store.jobs`; the same is said here once more in plain SQL, and a test holds the two equal.

Every function returns nothing found where the database does not exist yet.
Errors of all: DatabaseNewer, DatabaseOlder, DatabaseLocked, DatabaseBroken, FolderUnwritable.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Generator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

from ainfinity.domain.cost import cost
from ainfinity.schema.states import JOB_ENGINE
from ainfinity.schema.views import JobQuery, JobRow, Progress, WorkerStatus
from ainfinity.store.migrate import must_be_current, version_of
from ainfinity.store.sqlite import reading

#: The lease whose holder carries wishes out.
ENGINE_LEASE: Final = "engine"

#: Seconds to wait for a lock. Readers of a write-ahead log wait for none but a recovery after a crash.
_PATIENCE: Final = 5.0

_COLUMNS: Final = (
    "job.id, job.name, job.state, job.desired, job.owner, job.model, job.infra, job.gpus, job.priority, job.tags, "
    "job.note, job.attempt, job.submitted_at, job.started_at, job.finished_at, job.stale_since, job.error_code, "
    "job.error_message, job.seq, job.price_per_hour, job.kept_until, job.stuck_since, job.origin, job.claimed, "
    "job.spent, job.priced_from, p.step, p.total_steps, p.loss, p.lr, p.tokens_per_second, p.eta_seconds, "
    "p.updated_at, p.rev"
)
#: Where `tags` stands among the columns, and where those of the price and those of the progress begin.
_TAGS: Final = 9
_PRICE: Final = 19
_PROGRESS: Final = 26
_NO_PROGRESS: Final = Progress()


def peek_jobs(path: Path, query: JobQuery, now: float | None = None) -> list[JobRow]:
    """Return the jobs that fit, newest first, with what they cost up to `now` (by default this moment)."""
    sql, values = jobs_sql(query)
    now = time.time() if now is None else now
    with _reading(path) as connection:
        return [] if connection is None else [_row(now, *found) for found in connection.execute(sql, values)]


def peek_names(path: Path, prefix: str, limit: int = 50) -> list[str]:
    """Return the names that begin with `prefix`, of the newest jobs first."""
    sql = (
        "SELECT name FROM job WHERE name >= ? AND name < ? GROUP BY name ORDER BY max(submitted_at) DESC, name LIMIT ?"
    )
    with _reading(path) as connection:
        if connection is None:
            return []
        return [name for (name,) in connection.execute(sql, (prefix, prefix + "\U0010ffff", limit))]


def peek_table_names(path: Path, table: Literal["dataset", "orphan"], prefix: str, limit: int) -> list[str]:
    """Return the names in a table that begin with `prefix`, in order."""
    sql = f"SELECT name FROM {table} WHERE name >= ? AND name < ? ORDER BY name LIMIT ?"  # noqa: S608  # two constants
    with _reading(path) as connection:
        if connection is None:
            return []
        return [name for (name,) in connection.execute(sql, (prefix, prefix + "\U0010ffff", limit))]


def peek_counts(path: Path) -> dict[str, int]:
    """Return how many jobs are in each state that occurs."""
    with _reading(path) as connection:
        if connection is None:
            return {}
        return dict(connection.execute("SELECT state, count(*) FROM job GROUP BY state ORDER BY state"))


def peek_worker(path: Path, now: float) -> WorkerStatus:
    """Return who holds the engine's lease at `now` (Unix seconds), and how many jobs are the engine's to carry out."""
    states = [str(state) for state in JOB_ENGINE]
    with _reading(path) as connection:
        if connection is None:
            return WorkerStatus(False, "", 0, 0.0, 0)
        lease = "SELECT holder, epoch, expires_at, info FROM lease WHERE name = ?"
        holder, epoch, expires_at, info = connection.execute(lease, (ENGINE_LEASE,)).fetchone() or ("", 0, 0.0, "")
        live = f"SELECT count(*) FROM job WHERE state IN ({_marks(states)})"  # noqa: S608  # question marks only
        (count,) = connection.execute(live, states).fetchone()
    return WorkerStatus(bool(holder) and now < expires_at, holder, epoch, expires_at, count, info)


def jobs_sql(query: JobQuery) -> tuple[str, list[Any]]:
    """Return the statement of `peek_jobs` and its values."""
    wanted: list[str] = []
    values: list[Any] = []
    if query.states:
        wanted.append(f"job.state IN ({_marks(query.states)})")
        values += query.states
    if query.owner:
        wanted.append("job.owner = ?")
        values.append(query.owner)
    if query.text:
        places = ("job.id", "job.name", "job.model", "job.note")
        wanted.append("(" + " OR ".join(rf"{place} LIKE ? ESCAPE '\'" for place in places) + ")")
        escaped = query.text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        values += [f"%{escaped}%"] * len(places)
    if query.before is not None:
        wanted.append("(job.submitted_at, job.id) < (?, ?)")
        values += query.before
    for tag in query.tags:
        wanted.append("instr(job.tags, ?) > 0")
        values.append(json.dumps(tag))
    sql = f"SELECT {_COLUMNS} FROM job LEFT JOIN progress AS p ON p.job_id = job.id"  # noqa: S608  # constants only
    if wanted:
        sql += " WHERE " + " AND ".join(wanted)
    sql += " ORDER BY job.submitted_at DESC, job.id DESC"
    if query.limit is not None:
        sql += " LIMIT ?"
        values.append(query.limit)
    return sql, values


def _marks(values: tuple[str, ...] | list[str]) -> str:
    return ", ".join("?" * len(values))


@contextlib.contextmanager
def _reading(path: Path) -> Generator[sqlite3.Connection | None]:
    """Open the database if it exists and has this code's schema; None without any."""
    with reading(path, patience=_PATIENCE) as connection:
        version = None if connection is None else version_of(connection, path)
        if version is None:
            yield None
            return
        must_be_current(version, path)
        yield connection


def _row(now: float, *found: Any) -> JobRow:
    progress = _NO_PROGRESS if found[-1] is None else Progress(*found[_PROGRESS:])
    price, kept_until, stuck_since, origin, claimed, spent, priced_from = found[_PRICE:_PROGRESS]
    shown: list[Any] = [*found[:_TAGS], _tags(found[_TAGS]), *found[_TAGS + 1 : _PRICE], progress]
    shown += (cost(spent, price, priced_from, now), price, kept_until, stuck_since, origin, bool(claimed))
    return JobRow(*shown)


@lru_cache(1024)
def _tags(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))

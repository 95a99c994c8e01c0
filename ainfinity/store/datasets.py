"""Data sets: rows by SHA-256, and files whose place says what they hold.

`<data folder>/data/<sha256>/data.jsonl` is written once and never changed, so a job that is launched from it trains on
the bytes that were planned, whatever became of the file that a person named.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ainfinity.core.exceptions import DataInvalid
from ainfinity.schema.data import DatasetRow
from ainfinity.schema.states import JOB_LIVE
from ainfinity.store.events import JOB
from ainfinity.store.jobs import PLAN
from ainfinity.store.tables import core

DATASET = core("dataset")
_COLUMNS: Final = ("sha256", "name", "size", "rows", "added_at", "places")
_LIVE = tuple(str(state) for state in JOB_LIVE)


def content_path(data_dir: Path, sha256: str) -> Path:
    """Return where the content of that hash lies in a data folder, or will."""
    return data_dir / "data" / sha256 / "data.jsonl"


def shared_path(storage: str, sha256: str) -> Path:
    """Return where that content lies in a folder that the machines of jobs share."""
    return content_path(Path(storage), sha256)


def _row(found: Any) -> DatasetRow:
    return DatasetRow(found.sha256, found.name, found.size, found.rows, found.added_at, tuple(found.places))


def _select() -> sa.Select[Any]:
    return sa.select(*(DATASET.c[name] for name in _COLUMNS))


def all_rows(connection: Connection) -> list[DatasetRow]:
    """Return every data set, newest first."""
    statement = _select().order_by(DATASET.c.added_at.desc(), DATASET.c.name)
    return [_row(found) for found in connection.execute(statement)]


def find(connection: Connection, wanted: str) -> list[DatasetRow]:
    """Return the data set of that name, or those whose SHA-256 begins with `wanted` (8 digits or more)."""
    named = connection.execute(_select().where(DATASET.c.name == wanted)).all()
    if named or len(wanted) < 8:
        return [_row(found) for found in named]
    prefix = DATASET.c.sha256.startswith(wanted, autoescape=True)
    return [_row(found) for found in connection.execute(_select().where(prefix))]


def get(connection: Connection, sha256: str) -> DatasetRow | None:
    """Return the data set of that hash."""
    found = connection.execute(_select().where(DATASET.c.sha256 == sha256)).one_or_none()
    return None if found is None else _row(found)


def put(connection: Connection, row: DatasetRow) -> None:
    """Store a data set; the one of the same hash is replaced."""
    values = {name: getattr(row, name) for name in _COLUMNS} | {"places": list(row.places)}
    same = DATASET.c.sha256 == row.sha256
    if not connection.execute(DATASET.update().where(same).values(values)).rowcount:
        connection.execute(DATASET.insert().values(values))


def remove(connection: Connection, sha256: str) -> None:
    """Forget a data set."""
    connection.execute(DATASET.delete().where(DATASET.c.sha256 == sha256))


def users(connection: Connection, sha256: str) -> list[str]:
    """Return the names of live jobs whose plan trains or evaluates on that content."""
    statement = (
        sa.select(JOB.c.name, PLAN.c.plan)
        .select_from(JOB.join(PLAN, (PLAN.c.job_id == JOB.c.id) & (PLAN.c.plan_hash == JOB.c.plan_hash)))
        .where(JOB.c.state.in_(_LIVE))
        .order_by(JOB.c.name)
    )
    rows = connection.execute(statement)
    return [row.name for row in rows if sha256 in (row.plan.get("data_sha256"), row.plan.get("eval_data_sha256"))]


def with_fixed_data(spec: Mapping[str, Any], plan: Mapping[str, Any], data_dir: Path) -> dict[str, Any]:
    """Return a stored spec whose recipe reads the bytes that were planned.

    A recipe of a job from before there was a content store keeps the file that it names.

    Errors:
        DataInvalid: neither the content nor the file it came from is there any more.
    """
    recipe: Any = spec.get("recipe")
    if not isinstance(recipe, dict):
        return dict(spec)
    fixed = dict(cast("dict[str, Any]", recipe))
    for key, hashed in (("data", "data_sha256"), ("eval_data", "eval_data_sha256")):
        named, sha256 = fixed.get(key), plan.get(hashed)
        if not named:
            continue
        if sha256 and (content := _content(data_dir, spec, sha256)):
            fixed[key] = str(content)
        elif not Path(named).exists():
            raise DataInvalid(
                f"{named}: the data of this job is not there any more.",
                hint=f"Bring the file back and launch the job again; `ainfinity data list` shows what is kept. ({key})",
                field=f"recipe.{key}",
            )
    return {**spec, "recipe": fixed}


def _content(data_dir: Path, spec: Mapping[str, Any], sha256: str) -> Path | None:
    """Return the file that holds the content: the one that the job's machines see, or else the one kept here."""
    resources: Mapping[str, Any] = spec.get("resources") or {}
    storage = str(resources.get("storage") or "")
    shared = [shared_path(storage, sha256)] if os.path.isabs(storage) else []
    return next((path for path in (*shared, content_path(data_dir, sha256)) if path.is_file()), None)


def names(rows: Sequence[DatasetRow]) -> str:
    """Return the names of some data sets, for a message."""
    return ", ".join(row.name for row in rows[:5]) or "none"

"""Job and attempt rows as fronts and the engine read them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ainfinity.core.exceptions import AmbiguousName, NotFound
from ainfinity.domain.cost import cost
from ainfinity.domain.fold import AttemptFold, JobFold
from ainfinity.schema.states import JOB_ENGINE, JOB_LIVE
from ainfinity.schema.views import ArtifactRow, AttemptRow, JobQuery, JobRow, Progress
from ainfinity.store import progress as progress_store
from ainfinity.store import tables
from ainfinity.store.events import ATTEMPT, ATTEMPT_FOLD, EVENT, JOB, attempt_fold, job_fold
from ainfinity.store.tables import core

PROGRESS = core("progress")
PLAN = core("plan")
ARTIFACT = core("artifact")
CHUNK = core("metric_chunk")
DELIVERY = core("delivery")
META = core("meta")
AUDIT = core("audit")

_PROGRESS = ("step", "total_steps", "loss", "lr", "tokens_per_second", "eta_seconds", "updated_at", "rev")
_ROW = (
    "id", "name", "state", "desired", "owner", "model", "infra", "gpus", "priority", "tags", "note", "attempt",
    "submitted_at", "started_at", "finished_at", "stale_since", "error_code", "error_message", "seq",
    "price_per_hour", "kept_until", "stuck_since", "origin", "claimed",
)  # fmt: skip
_METER = ("spent", "priced_from")
_LIVE = tuple(str(state) for state in JOB_LIVE)
_ENGINE = tuple(str(state) for state in JOB_ENGINE)


def _rows() -> sa.Select[Any]:
    columns = [JOB.c[name] for name in (*_ROW, *_METER)] + [PROGRESS.c[name].label(f"p_{name}") for name in _PROGRESS]
    return sa.select(*columns).select_from(JOB.outerjoin(PROGRESS, PROGRESS.c.job_id == JOB.c.id))


_ROWS_BY_ID = _rows().where(JOB.c.id.in_(sa.bindparam("ids", expanding=True)))
_ATTEMPTS_BY_KEY = sa.select(*(ATTEMPT.c[name] for name in (*ATTEMPT_FOLD, "log_offset", "line_seq"))).where(
    sa.tuple_(ATTEMPT.c.job_id, ATTEMPT.c.number).in_(sa.bindparam("keys", expanding=True))
)


def _row(found: Any, now: float) -> JobRow:
    values = {name: getattr(found, name) for name in _ROW}
    values["tags"] = tuple(values["tags"])
    values["cost"] = cost(found.spent, found.price_per_hour, found.priced_from, now)
    progress = Progress()
    if found.p_rev is not None:
        progress = Progress(**{name: getattr(found, f"p_{name}") for name in _PROGRESS})
    return JobRow(**values, progress=progress)


def escape_like(text: str) -> str:
    r"""Return `text` for a LIKE pattern with `\` as its escape character."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def query(connection: Connection, wanted: JobQuery, now: float | None = None) -> list[JobRow]:
    """Return the jobs that fit, newest first, with what they cost up to `now` (by default this moment)."""
    now = time.time() if now is None else now
    statement = _rows().order_by(JOB.c.submitted_at.desc(), JOB.c.id.desc())
    if wanted.states:
        statement = statement.where(JOB.c.state.in_(wanted.states))
    if wanted.owner:
        statement = statement.where(JOB.c.owner == wanted.owner)
    if wanted.text:
        pattern = f"%{escape_like(wanted.text)}%"
        places = (JOB.c.id, JOB.c.name, JOB.c.model, JOB.c.note)
        statement = statement.where(sa.or_(*(place.ilike(pattern, escape="\\") for place in places)))
    if wanted.before is not None:
        at, job_id = wanted.before
        statement = statement.where(sa.tuple_(JOB.c.submitted_at, JOB.c.id) < sa.tuple_(at, job_id))
    for tag in wanted.tags:
        # A tag stands in the column's JSON text as JSON writes it. LIKE would pass over case, so it is cut out instead.
        text = sa.cast(JOB.c.tags, sa.Text)
        statement = statement.where(sa.func.replace(text, json.dumps(tag), "") != text)
    if wanted.limit is not None:
        statement = statement.limit(wanted.limit)
    return [_row(found, now) for found in connection.execute(statement)]


def by_ids(connection: Connection, ids: Iterable[str], now: float | None = None) -> list[JobRow]:
    """Return the rows of the jobs that exist among `ids`, in no particular order; `now` as in `query`."""
    now = time.time() if now is None else now
    rows: list[JobRow] = []
    wanted = list(dict.fromkeys(ids))
    for start in range(0, len(wanted), 500):
        part = connection.execute(_ROWS_BY_ID, {"ids": wanted[start : start + 500]})
        rows.extend(_row(found, now) for found in part)
    return rows


def get(connection: Connection, job_id: str, now: float | None = None) -> JobRow:
    """Return one job by id; `now` as in `query`. Errors: NotFound."""
    found = by_ids(connection, [job_id], now)
    if not found:
        raise NotFound(f"There is no job {job_id}.", hint="`ainfinity list --all` shows all jobs.")
    return found[0]


def resolve(connection: Connection, wanted: str) -> str:
    """Return the id of a job given by id, by name (the newest of it), or by a prefix of either that fits one name.

    Errors:
        NotFound: nothing fits. AmbiguousName: the prefix fits several names.
    """
    columns = sa.select(JOB.c.id, JOB.c.name).order_by(JOB.c.submitted_at.desc(), JOB.c.id.desc())
    exact = connection.execute(columns.where(sa.or_(JOB.c.id == wanted, JOB.c.name == wanted)).limit(1)).one_or_none()
    if exact is not None:
        return str(exact.id)
    if wanted:
        pattern = f"{escape_like(wanted)}%"
        fits = sa.or_(JOB.c.id.like(pattern, escape="\\"), JOB.c.name.like(pattern, escape="\\"))
        newest: dict[str, str] = {}
        for found in connection.execute(columns.where(fits).limit(200)):
            newest.setdefault(found.name, found.id)
        if len(newest) == 1:
            return next(iter(newest.values()))
        if newest:
            names = ", ".join(sorted(newest)[:5])
            raise AmbiguousName(f"Several jobs begin with {wanted!r}: {names}.", hint="Give more of the name.")
    raise NotFound(f"There is no job {wanted!r}.", hint="`ainfinity list --all` shows all jobs.")


def insert(connection: Connection, values: Mapping[str, Any]) -> None:
    """Insert a job row; columns that are not given take the table's defaults."""
    connection.execute(JOB.insert().values(tables.Job(**values).model_dump()))


def put_plan(connection: Connection, job_id: str, plan_hash: str, plan: Mapping[str, Any], at: float) -> None:
    """Store a plan of a job unless it is known by its hash."""
    same = (PLAN.c.job_id == job_id) & (PLAN.c.plan_hash == plan_hash)
    if connection.execute(sa.select(PLAN.c.at).where(same)).first() is None:
        connection.execute(PLAN.insert().values(job_id=job_id, plan_hash=plan_hash, plan=plan, at=at))


def provenance(connection: Connection, job_id: str) -> dict[str, Any]:
    """Return what the submit recorded of where the job came from."""
    first = sa.select(EVENT.c.data).where(EVENT.c.job_id == job_id, EVENT.c.type == "job.submitted").limit(1)
    data: dict[str, Any] = connection.execute(first).scalar_one_or_none() or {}
    return data.get("provenance") or {}


def live_id_of_name(connection: Connection, name: str) -> str | None:
    """Return the id of the live job of that name, if there is one."""
    statement = sa.select(JOB.c.id).where(JOB.c.name == name, JOB.c.state.in_(_LIVE)).limit(1)
    return connection.execute(statement).scalar_one_or_none()


def by_key(connection: Connection, key: str) -> tuple[str, str] | None:
    """Return (id, digest of the spec) of the job that was submitted with this idempotency key."""
    row = connection.execute(sa.select(JOB.c.id, JOB.c.key_sha256).where(JOB.c.key == key)).one_or_none()
    return None if row is None else (row.id, row.key_sha256)


def spec_and_plan(connection: Connection, job_id: str) -> tuple[dict[str, Any], str, dict[str, Any], dict[str, Any]]:
    """Return the job's spec, plan hash, plan and result."""
    row = connection.execute(
        sa.select(JOB.c.spec, JOB.c.plan_hash, JOB.c.result, PLAN.c.plan)
        .select_from(JOB.outerjoin(PLAN, (PLAN.c.job_id == JOB.c.id) & (PLAN.c.plan_hash == JOB.c.plan_hash)))
        .where(JOB.c.id == job_id)
    ).one()
    return row.spec, row.plan_hash, row.plan or {}, row.result


def fold_of(connection: Connection, job_id: str) -> JobFold:
    """Return the job's fold as stored."""
    return job_fold(connection.execute(sa.select(JOB).where(JOB.c.id == job_id)).one())


def attempts(connection: Connection, job_id: str, now: float | None = None) -> list[AttemptRow]:
    """Return a job's attempts, oldest first; `now` as in `query`."""
    now = time.time() if now is None else now
    names = (
        "job_id", "number", "name", "state", "backend", "handle", "intent_at", "started_at", "finished_at", "exit_code",
        "outcome", "reason", "resume_step", "provenance", "price_per_hour", "given", "recoveries", "deadline",
        "keep_until", "keep_reason", "paid_from",
    )  # fmt: skip
    statement = sa.select(*(ATTEMPT.c[name] for name in (*names, *_METER))).where(ATTEMPT.c.job_id == job_id)
    rows: list[AttemptRow] = []
    for found in connection.execute(statement.order_by(ATTEMPT.c.number)):
        values = {name: getattr(found, name) for name in names}
        rows.append(AttemptRow(**values, cost=cost(found.spent, found.price_per_hour, found.priced_from, now)))
    return rows


def artifacts(connection: Connection, job_id: str) -> list[ArtifactRow]:
    """Return what a job left, oldest first."""
    names = ("job_id", "attempt", "kind", "path", "size", "sha256", "at", "step")
    statement = sa.select(*(ARTIFACT.c[name] for name in names)).where(ARTIFACT.c.job_id == job_id)
    return [ArtifactRow(**row._mapping) for row in connection.execute(statement.order_by(ARTIFACT.c.id))]  # pyright: ignore[reportPrivateUsage]


def add_artifacts(connection: Connection, rows: Sequence[ArtifactRow]) -> None:
    """Store artifacts; one that is known by (job, attempt, kind, path) is replaced."""
    for row in rows:
        values = {
            name: getattr(row, name) for name in ("job_id", "attempt", "kind", "path", "size", "sha256", "at", "step")
        }
        same = sa.and_(*(ARTIFACT.c[name] == values[name] for name in ("job_id", "attempt", "kind", "path")))
        if not connection.execute(ARTIFACT.update().where(same).values(values)).rowcount:
            connection.execute(ARTIFACT.insert().values(values))


def live_infras(connection: Connection) -> set[str]:
    """Return the infrastructures of the jobs that the engine has something to do for."""
    return set(connection.scalars(sa.select(JOB.c.infra).distinct().where(JOB.c.state.in_(_ENGINE))))


def live_work_count(connection: Connection) -> int:
    """Return how many jobs the engine has something to do for; those that wait for a person do not count."""
    statement = sa.select(sa.func.count()).select_from(JOB).where(JOB.c.state.in_(_ENGINE))
    return connection.execute(statement).scalar_one()


def installation(connection: Connection) -> str:
    """Return this installation's random id, 8 hex digits; attempt names begin with it."""
    return str(connection.execute(sa.select(META.c.value).where(META.c.name == "installation")).scalar_one())


def audit(connection: Connection, at: float, actor: str, action: str, subject: str, **detail: Any) -> None:
    """Record who did what."""
    connection.execute(AUDIT.insert().values(at=at, actor=actor, action=action, subject=subject, detail=detail))


def delete(connection: Connection, job_id: str) -> None:
    """Remove a job's rows. Its last event stays, so that `seq` is never given out twice."""
    progress_store.forget(connection, job_id)
    for table in (PLAN, ARTIFACT, CHUNK, DELIVERY, ATTEMPT):
        connection.execute(table.delete().where(table.c.job_id == job_id))
    last = sa.select(sa.func.max(EVENT.c.seq)).scalar_subquery()
    connection.execute(EVENT.delete().where(EVENT.c.job_id == job_id, EVENT.c.seq != last))
    connection.execute(JOB.delete().where(JOB.c.id == job_id))


def attempt_folds(connection: Connection, keys: Iterable[tuple[str, int]]) -> dict[str, tuple[AttemptFold, int, int]]:
    """Return (fold, log offset, trainer seq) of the given attempts, by job id."""
    found: dict[str, tuple[AttemptFold, int, int]] = {}
    wanted = list(keys)
    for start in range(0, len(wanted), 400):
        for row in connection.execute(_ATTEMPTS_BY_KEY, {"keys": wanted[start : start + 400]}):
            found[row.job_id] = (attempt_fold(row), row.log_offset, row.line_seq)
    return found

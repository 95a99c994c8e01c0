"""The event log and the rows that are its fold, always changed together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ainfinity.core.exceptions import NotFound
from ainfinity.domain.fold import AttemptFold, JobFold, fold_attempt, fold_job
from ainfinity.schema.event import TERMINAL_EVENTS, Event, EventType
from ainfinity.schema.states import AttemptState, Desired, JobState
from ainfinity.store.tables import core

JOB = core("job")
ATTEMPT = core("attempt")
EVENT = core("event")
DELIVERY = core("delivery")

JOB_FOLD = tuple(field.name for field in fields(JobFold))
ATTEMPT_FOLD = tuple(field.name for field in fields(AttemptFold))

_JOB_BY_ID = sa.select(*(JOB.c[name] for name in JOB_FOLD), JOB.c.notify).where(JOB.c.id == sa.bindparam("job_id"))
_ATTEMPT_BY_KEY = sa.select(*(ATTEMPT.c[name] for name in ATTEMPT_FOLD)).where(
    ATTEMPT.c.job_id == sa.bindparam("key_job"), ATTEMPT.c.number == sa.bindparam("key_number")
)
_LAST_SEQ = sa.select(sa.func.coalesce(sa.func.max(EVENT.c.seq), 0))
_INSERT = EVENT.insert()
_INSERT_ATTEMPT = ATTEMPT.insert()
_UPDATE_JOB = JOB.update().where(JOB.c.id == sa.bindparam("key_job"))
_UPDATE_ATTEMPT = ATTEMPT.update().where(
    ATTEMPT.c.job_id == sa.bindparam("key_job"), ATTEMPT.c.number == sa.bindparam("key_number")
)
_EVENT_COLUMNS = (EVENT.c.seq, EVENT.c.job_id, EVENT.c.attempt, EVENT.c.type, EVENT.c.at, EVENT.c.actor, EVENT.c.data)

_AFTER = (
    sa.select(*_EVENT_COLUMNS)
    .where(EVENT.c.seq > sa.bindparam("after"))
    .order_by(EVENT.c.seq)
    .limit(sa.bindparam("at_most"))
)
_AFTER_OF_JOB = _AFTER.where(EVENT.c.job_id == sa.bindparam("key_job"))

#: Events that change no row; a log of them alone needs no fold, and no job either: an orphan's may be unknown here.
_FACTS = frozenset(
    {EventType.TRAINER_SAMPLE, EventType.TRAINER_WARNING, EventType.ORPHAN_FOUND, EventType.ORPHAN_REMOVED}
)
#: What every owner is told who is told anything.
_TOLD = TERMINAL_EVENTS | {EventType.APPROVAL_REQUESTED, EventType.ATTEMPT_KEPT, EventType.ATTEMPT_STUCK}
#: What an owner who wants to know everything is told besides that.
_TOLD_WITH_ALL = frozenset(
    {EventType.ATTEMPT_RUNNING, EventType.ATTEMPT_RECOVERING, EventType.ATTEMPT_LOST, EventType.ATTEMPT_FAILED}
)


def job_fold(row: Any) -> JobFold:
    """Return the fold that is stored in a job row."""
    values = {name: getattr(row, name) for name in JOB_FOLD}
    values["state"] = JobState(values["state"])
    values["desired"] = Desired(values["desired"])
    return JobFold(**values)


def attempt_fold(row: Any) -> AttemptFold:
    """Return the fold that is stored in an attempt row."""
    values = {name: getattr(row, name) for name in ATTEMPT_FOLD}
    values["state"] = AttemptState(values["state"])
    return AttemptFold(**values)


def last_seq(connection: Connection) -> int:
    """Return the `seq` of the newest event, 0 without any."""
    return connection.execute(_LAST_SEQ).scalar_one()


def append(connection: Connection, events: Sequence[Event], places: Sequence[str] = ()) -> list[Event]:
    """Store events, fold them into their rows and write the deliveries that they owe, all in this transaction.

    Returns the events with their `seq`. The transaction must be a writing one: writers are serialised, so `seq` is
    counted here, in commit order.

    Errors:
        NotFound: an event's job does not exist.
    """
    if not events:
        return []
    first = last_seq(connection) + 1
    stored = [replace(event, seq=first + index) for index, event in enumerate(events)]
    connection.execute(_INSERT, [_columns(event) for event in stored])
    by_job: dict[str, list[Event]] = {}
    for event in stored:
        by_job.setdefault(event.job_id, []).append(event)
    for job_id, mine in by_job.items():
        if any(event.type not in _FACTS for event in mine):
            _fold_rows(connection, job_id, mine, places)
    return stored


def _columns(event: Event) -> dict[str, Any]:
    # Not asdict, which copies deeply: it took three quarters of the time of a batch.
    return {
        "seq": event.seq,
        "job_id": event.job_id,
        "attempt": event.attempt,
        "type": str(event.type),
        "at": event.at,
        "actor": event.actor,
        "data": event.data,
    }


def _fold_rows(connection: Connection, job_id: str, events: Sequence[Event], places: Sequence[str]) -> None:
    row = connection.execute(_JOB_BY_ID, {"job_id": job_id}).one_or_none()
    if row is None:
        raise NotFound(f"There is no job {job_id}.")
    before = job = job_fold(row)
    old: dict[int, AttemptFold | None] = {}
    new: dict[int, AttemptFold | None] = {}
    for event in events:
        job = fold_job(job, event)
        if event.attempt:
            if event.attempt not in old:
                old[event.attempt] = new[event.attempt] = get_attempt(connection, job_id, event.attempt)
            new[event.attempt] = fold_attempt(new[event.attempt], event)
    seq = events[-1].seq
    changed = [number for number, attempt in new.items() if attempt is not old[number]]
    for number in changed:
        _save_attempt(connection, old[number], new[number], seq)
    if changed or job is not before:
        values = _difference(before, job) | {"seq": seq}
        connection.execute(_UPDATE_JOB, values | {"key_job": job_id})
    if places:
        _owe(connection, events, row.notify, places)


def get_attempt(connection: Connection, job_id: str, number: int) -> AttemptFold | None:
    """Return one attempt's fold, or None."""
    row = connection.execute(_ATTEMPT_BY_KEY, {"key_job": job_id, "key_number": number}).one_or_none()
    return None if row is None else attempt_fold(row)


def _difference(old: JobFold | AttemptFold, new: JobFold | AttemptFold) -> dict[str, Any]:
    names = JOB_FOLD if isinstance(new, JobFold) else ATTEMPT_FOLD
    pairs = ((name, getattr(new, name)) for name in names if getattr(new, name) != getattr(old, name))
    return {name: str(value) if isinstance(value, str) else value for name, value in pairs}


def _save_attempt(connection: Connection, old: AttemptFold | None, new: AttemptFold | None, seq: int) -> None:
    if new is None:
        return
    if old is None:
        values = asdict(new) | {"state": str(new.state), "seq": seq}
        connection.execute(_INSERT_ATTEMPT, values)
        return
    values = _difference(old, new) | {"seq": seq, "key_job": new.job_id, "key_number": new.number}
    connection.execute(_UPDATE_ATTEMPT, values)


def _owe(connection: Connection, events: Iterable[Event], notify: str, places: Sequence[str]) -> None:
    if notify == "none":
        return
    told = _TOLD | _TOLD_WITH_ALL if notify == "all" else _TOLD
    owed = [
        {"event_seq": event.seq, "job_id": event.job_id, "place": place, "due_at": event.at}
        for event in events
        if event.type in told
        for place in places
    ]
    if owed:
        connection.execute(DELIVERY.insert(), owed)


def read(connection: Connection, job_id: str = "", *, after: int = 0, limit: int = 1000) -> list[Event]:
    """Return events after the cursor in order of `seq`, of one job or of all."""
    statement = _AFTER_OF_JOB if job_id else _AFTER
    found = connection.execute(statement, {"after": after, "at_most": limit, "key_job": job_id})
    return [event_of(row) for row in found]


def get(connection: Connection, seq: int) -> Event:
    """Return one event. Errors: NotFound."""
    row = connection.execute(sa.select(*_EVENT_COLUMNS).where(EVENT.c.seq == seq)).one_or_none()
    if row is None:
        raise NotFound(f"There is no event {seq}.")
    return event_of(row)


def event_of(row: Any) -> Event:
    """Return the event that is stored in an event row."""
    data: Mapping[str, Any] = row.data
    return Event(row.type, row.job_id, row.at, row.actor, row.attempt, dict(data), row.seq)

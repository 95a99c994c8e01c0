"""Machines with this installation's name that no live job owns. Times are Unix seconds, prices dollars an hour."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ainfinity.schema.event import Event, EventType
from ainfinity.schema.numbers import number
from ainfinity.schema.states import ATTEMPT_TERMINAL, JOB_LIVE
from ainfinity.store import events
from ainfinity.store.events import ATTEMPT, DELIVERY, JOB
from ainfinity.store.tables import core

ORPHAN = core("orphan")

_JOB_IN_NAME = re.compile(r"ain-[0-9a-f]{8}-([a-z2-7]{10})-a\d+")
_CLUSTER = "cluster:"
_OVER = frozenset(str(state) for state in ATTEMPT_TERMINAL)


@dataclass(frozen=True, slots=True)
class Orphan:
    """One such machine. `answer` is "", `keep` or `remove`."""

    name: str
    backend: str
    kind: str
    first_seen: float
    last_seen: float
    launched_at: float | None = None
    price_per_hour: float | None = None
    given: str = ""
    answer: str = ""
    answered_by: str = ""
    #: Whether its owner was told of it.
    told: bool = True

    def leaked(self, now: float) -> float | None:
        """Return the dollars spent since it was launched, as far as that is known, else since it was first seen."""
        if self.price_per_hour is None:
            return None
        since = self.first_seen if self.launched_at is None else self.launched_at
        return self.price_per_hour * max(0.0, now - since) / 3600.0

    def removed_at(self, after: float) -> float | None:
        """Return when it is removed if nobody answers for `after` seconds; None once that was answered."""
        return None if self.answer else self.first_seen + after


@dataclass(frozen=True, slots=True)
class Owner:
    """The recorded attempt that a machine's name belongs to."""

    #: When the attempt was over; None while it is not.
    ended_at: float | None
    #: The machine is to stay until then though its attempt is over.
    keep_until: float | None
    #: Started by somebody else with plain SkyPilot, and only shown here.
    only_shown: bool

    def wants_it_gone(self, at: float) -> bool:
        """Whether a machine that was there at that time outlived its attempt, and nobody wants it to."""
        over = self.ended_at is not None and self.ended_at <= at
        return over and not self.only_shown and (self.keep_until is None or self.keep_until <= at)


_NAMES = tuple(field.name for field in fields(Orphan))
_ALL = sa.select(*(ORPHAN.c[name] for name in _NAMES)).order_by(ORPHAN.c.first_seen, ORPHAN.c.name)
_OWNERS = (
    sa.select(ATTEMPT.c.name, ATTEMPT.c.state, ATTEMPT.c.finished_at, ATTEMPT.c.keep_until, JOB.c.origin, JOB.c.claimed)
    .join(JOB, JOB.c.id == ATTEMPT.c.job_id)
    .where(
        sa.or_(
            ATTEMPT.c.name.in_(sa.bindparam("names", expanding=True)),
            JOB.c.origin.in_(sa.bindparam("origins", expanding=True)),
        )
    )
    .order_by(ATTEMPT.c.intent_at)
)


_ADOPTED_NAMES = (
    sa.select(ATTEMPT.c.name)
    .join(JOB, JOB.c.id == ATTEMPT.c.job_id)
    .where(JOB.c.origin != "", JOB.c.state.in_(tuple(str(state) for state in JOB_LIVE)))
    .where(ATTEMPT.c.state.not_in(tuple(_OVER)))
)


def from_entry(entry: Mapping[str, Any], at: float) -> Orphan:
    """Return the orphan of an entry of the answer `orphans`, as of `at`, of which nobody was told yet."""
    return Orphan(
        name=str(entry["name"]),
        backend=str(entry.get("backend", "")),
        kind=str(entry.get("kind", "cluster")),
        first_seen=at,
        last_seen=at,
        launched_at=number(entry.get("launched_at")),
        price_per_hour=number(entry.get("price_per_hour")),
        given=str(entry.get("given", "")),
        told=False,
    )


def as_entry(orphan: Orphan) -> dict[str, Any]:
    """Return a machine as the answer `orphans` lists it."""
    names = ("name", "backend", "kind", "launched_at", "price_per_hour", "given")
    return {name: getattr(orphan, name) for name in names}


def listed(connection: Connection, backend: str = "") -> list[Orphan]:
    """Return the orphans of one backend or of all, the oldest first."""
    statement = _ALL.where(ORPHAN.c.backend == backend) if backend else _ALL
    return [Orphan(**row._mapping) for row in connection.execute(statement)]  # pyright: ignore[reportPrivateUsage]


def get(connection: Connection, name: str) -> Orphan | None:
    """Return one orphan, or None."""
    row = connection.execute(_ALL.where(ORPHAN.c.name == name)).one_or_none()
    return None if row is None else Orphan(**row._mapping)  # pyright: ignore[reportPrivateUsage]


def owners(connection: Connection, names: Collection[str]) -> dict[str, Owner]:
    """Return the owner of each of these names that has one, live or over; of an adopted cluster the newest."""
    found: dict[str, Owner] = {}
    wanted = sorted(names)
    for start in range(0, len(wanted), 400):
        part = wanted[start : start + 400]
        for row in connection.execute(_OWNERS, {"names": part, "origins": [f"{_CLUSTER}{name}" for name in part]}):
            ended_at = row.finished_at if row.state in _OVER else None
            name = row.origin.removeprefix(_CLUSTER) if row.origin else row.name
            found[name] = Owner(ended_at, row.keep_until, bool(row.origin) and not row.claimed)
    return found


def adopted_names(connection: Connection) -> list[str]:
    """Return the names of the live attempts that plain SkyPilot started: `cluster:NAME` or `managed:ID`."""
    return list(connection.scalars(_ADOPTED_NAMES))


def put(connection: Connection, orphans: Iterable[Orphan]) -> None:
    """Store orphans; what is known of one is brought up to date, but for its answer."""
    for orphan in orphans:
        values = asdict(orphan)
        seen = {key: values[key] for key in ("last_seen", "launched_at", "price_per_hour", "given", "told")}
        same = ORPHAN.c.name == orphan.name
        if not connection.execute(ORPHAN.update().where(same).values(seen)).rowcount:
            connection.execute(ORPHAN.insert().values(values))


def answer(connection: Connection, name: str, given: str, by: str) -> None:
    """Record what the owner said of an orphan."""
    connection.execute(ORPHAN.update().where(ORPHAN.c.name == name).values(answer=given, answered_by=by))


def forget(connection: Connection, names: Collection[str]) -> None:
    """Remove the rows of these orphans."""
    if names:
        connection.execute(ORPHAN.delete().where(ORPHAN.c.name.in_(sorted(names))))


def open_count(connection: Connection) -> int:
    """Return how many orphans the engine has something to do for: all but those that were said to be kept."""
    statement = sa.select(sa.func.count()).select_from(ORPHAN).where(ORPHAN.c.answer != "keep")
    return connection.execute(statement).scalar_one()


def tell(
    connection: Connection,
    kind: EventType,
    told: Sequence[tuple[str, Mapping[str, Any]]],
    at: float,
    actor: str,
    places: Sequence[str],
) -> None:
    """Store an event for each (name, data) and owe it to every place, whatever the job in the name wants told."""
    made = [Event(kind, job_in(name), at, actor, 0, {"name": name, **data}) for name, data in told]
    stored = events.append(connection, made)
    owed = [
        {"event_seq": event.seq, "job_id": event.job_id, "place": place, "due_at": at}
        for event in stored
        for place in places
    ]
    if owed:
        connection.execute(DELIVERY.insert(), owed)


def job_in(name: str) -> str:
    """Return the id of the job that an attempt's name speaks of, or ""."""
    fits = _JOB_IN_NAME.fullmatch(name)
    return fits[1] if fits else ""

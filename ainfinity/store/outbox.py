"""Deliveries owed: each event at each place, told once by whoever claims it. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ainfinity.store.tables import core

DELIVERY = core("delivery")

#: A delivery that failed is tried again after 2, 4, 8… seconds, at most an hour, and given up after so many tries.
MAX_TRIES = 10
BACKOFF = 2.0
_LONGEST = 3600.0


@dataclass(frozen=True, slots=True)
class Claim:
    """A delivery that is the caller's to tell until the claim runs out. `tries` counts this one too."""

    id: int
    place: str
    job_id: str
    event_seq: int
    tries: int


# Built once: a worker asks on every tick.
_DUE = (
    DELIVERY.c.state == "owed",
    DELIVERY.c.due_at <= sa.bindparam("now"),
    DELIVERY.c.place == sa.bindparam("at_place"),
    sa.or_(DELIVERY.c.claimed_until.is_(None), DELIVERY.c.claimed_until <= sa.bindparam("now")),
)
_IS_DUE = sa.select(DELIVERY.c.id).where(*_DUE).limit(1)
_TO_CLAIM = (
    sa.select(DELIVERY.c.id, DELIVERY.c.place, DELIVERY.c.job_id, DELIVERY.c.event_seq, DELIVERY.c.tries)
    .where(*_DUE)
    .order_by(DELIVERY.c.event_seq)
    .limit(sa.bindparam("at_most"))
)


def is_due(connection: Connection, place: str, now: float) -> bool:
    """Whether anything can be claimed for the place; a reading transaction will do."""
    return connection.execute(_IS_DUE, {"now": now, "at_place": place}).first() is not None


def claim(connection: Connection, place: str, now: float, lease: float, limit: int) -> list[Claim]:
    """Claim up to `limit` deliveries to one place for `lease` seconds, in the order of their events.

    A claim that runs out unsettled, because its owner died, can be claimed again and has used up no try: many claims
    die with one owner, and a notice must not be given up for that.
    """
    due = connection.execute(_TO_CLAIM, {"now": now, "at_place": place, "at_most": limit})
    claims = [Claim(row.id, row.place, row.job_id, row.event_seq, row.tries + 1) for row in due]
    if claims:
        mine = DELIVERY.update().where(DELIVERY.c.id.in_([one.id for one in claims]))
        connection.execute(mine.values(claimed_until=now + lease))
    return claims


def void_claims(connection: Connection, places: Sequence[str]) -> None:
    """Make what was claimed at these places due again, for a new owner of them all."""
    mine = (DELIVERY.c.place.in_(places), DELIVERY.c.state == "owed", DELIVERY.c.claimed_until.is_not(None))
    connection.execute(DELIVERY.update().where(*mine).values(claimed_until=None))


def settle(
    connection: Connection,
    delivery_id: int,
    ok: bool,
    now: float,
    detail: str = "",
    max_tries: int = MAX_TRIES,
    backoff: float = BACKOFF,
) -> bool:
    """Record what became of a claim: sent, to be told again later, or given up. False means it was settled before."""
    open_one = (DELIVERY.c.id == delivery_id, DELIVERY.c.state == "owed")
    tries = connection.execute(sa.select(DELIVERY.c.tries).where(*open_one)).scalar_one_or_none()
    if tries is None:
        return False
    tries += 1
    values: dict[str, object] = {"claimed_until": None, "detail": detail, "tries": tries}
    if ok:
        values["state"] = "sent"
    elif tries >= max_tries:
        values["state"] = "failed"
    else:
        values["due_at"] = now + min(_LONGEST, backoff * 2.0 ** (tries - 1))
    connection.execute(DELIVERY.update().where(*open_one).values(values))
    return True


def owed(connection: Connection, place: str = "") -> int:
    """Return how many deliveries, to one place or to all, were neither sent nor given up."""
    statement = sa.select(sa.func.count()).select_from(DELIVERY).where(DELIVERY.c.state == "owed")
    if place:
        statement = statement.where(DELIVERY.c.place == place)
    return connection.execute(statement).scalar_one()

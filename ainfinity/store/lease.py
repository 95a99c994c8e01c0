"""Who may act: a lease with an expiry, and an epoch that voids a late owner.

Expiry only decides who may take the lease next; what guards a write is the epoch, checked in the same transaction.
A worker that slept through its expiry therefore writes nothing once another has taken over, and goes on where none has.
Times are Unix seconds and come from the caller.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ainfinity.core.exceptions import LeaseLost
from ainfinity.store.tables import core

LEASE = core("lease")


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """A lease as it stands. `holder` is empty while nobody has it."""

    holder: str
    epoch: int
    expires_at: float
    info: str

    def alive(self, now: float) -> bool:
        """Whether somebody holds the lease at `now`."""
        return bool(self.holder) and now < self.expires_at


# Built once: it stands at the beginning of every write of the engine.
_STATUS = sa.select(LEASE.c.holder, LEASE.c.epoch, LEASE.c.expires_at, LEASE.c.info).where(
    LEASE.c.name == sa.bindparam("of")
)


def acquire(connection: Connection, name: str, holder: str, now: float, ttl: float, info: str = "") -> int | None:
    """Take the lease for `ttl` seconds if it is free, expired or the holder's own; return its new epoch.

    Every success raises the epoch, also the holder's own, so that what it began before is void. None means that
    somebody else holds it. `holder` must be unique to one run of a process.
    """
    _create(connection, name)
    taken = connection.execute(
        LEASE.update()
        .where(
            LEASE.c.name == name,
            sa.or_(LEASE.c.holder.in_(("", holder)), LEASE.c.expires_at <= now),
        )
        .values(holder=holder, epoch=LEASE.c.epoch + 1, expires_at=now + ttl, info=info)
        .returning(LEASE.c.epoch)
    )
    return taken.scalar_one_or_none()


def renew(connection: Connection, name: str, holder: str, epoch: int, now: float, ttl: float) -> bool:
    """Hold on for `ttl` seconds from `now`; False means that the lease is lost."""
    return _update(connection, name, holder, epoch, {"expires_at": now + ttl})


def release(connection: Connection, name: str, holder: str, epoch: int) -> bool:
    """Give the lease back; False means that it was lost before. The epoch stays, so that it never repeats."""
    return _update(connection, name, holder, epoch, {"holder": "", "expires_at": 0.0, "info": ""})


def check(connection: Connection, name: str, holder: str, epoch: int) -> None:
    """Make sure, in a writing transaction, that the lease is still the holder's.

    Errors:
        LeaseLost: it is not; nothing of this transaction may be kept.
    """
    found = status(connection, name)
    if (found.holder, found.epoch) != (holder, epoch):
        owner = f"{found.holder} (epoch {found.epoch})" if found.holder else "nobody"
        raise LeaseLost(f"The lease {name!r} of {holder} (epoch {epoch}) is lost; {owner} holds it now.")


def status(connection: Connection, name: str) -> LeaseStatus:
    """Return how the lease stands; one that nobody ever took is free at epoch 0."""
    row = connection.execute(_STATUS, {"of": name}).one_or_none()
    return LeaseStatus("", 0, 0.0, "") if row is None else LeaseStatus(*row)


def _create(connection: Connection, name: str) -> None:
    # Writers come one at a time (see `Database.write`), so nobody can insert between the look and the insert.
    if connection.execute(_STATUS, {"of": name}).first() is None:
        connection.execute(LEASE.insert().values(name=name, holder="", epoch=0, expires_at=0.0, info=""))


def _update(connection: Connection, name: str, holder: str, epoch: int, values: dict[str, str | float]) -> bool:
    mine = (LEASE.c.name == name, LEASE.c.holder == holder, LEASE.c.epoch == epoch)
    return connection.execute(LEASE.update().where(*mine).values(**values)).rowcount == 1

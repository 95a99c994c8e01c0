"""Writing as the lease's owner, and only as long as one is it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy.engine import Connection

from ainfinity.core.exceptions import LeaseLost
from ainfinity.store import jobs, lease, orphans, outbox
from ainfinity.store.migrate import check_version
from ainfinity.store.store import Store

LEASE = "engine"


class Fence:
    """The lease of one worker. Every write of the engine goes through `write`, which a late owner cannot pass."""

    def __init__(self, store: Store, holder: str, *, ttl: float, renew_after: float, info: str = "") -> None:
        self.store = store
        self.holder = holder
        self.ttl = ttl
        self.renew_after = renew_after
        self.info = info
        self.epoch = 0
        self.expires_at = 0.0

    def acquire(self) -> bool:
        """Take the lease if it is free or expired."""
        now = self.store.clock.now()
        with self.store.write() as connection:
            check_version(connection)
            epoch = lease.acquire(connection, LEASE, self.holder, now, self.ttl, self.info)
        if epoch is None:
            return False
        self.epoch, self.expires_at = epoch, now + self.ttl
        return True

    def renew(self) -> None:
        """Extend the lease. Errors: LeaseLost."""
        now = self.store.clock.now()
        with self.store.database.write() as connection:  # no ring: nobody waits for a renewal
            check_version(connection)
            held = lease.renew(connection, LEASE, self.holder, self.epoch, now, self.ttl)
        if not held:
            raise LeaseLost("Another worker holds the lease.")
        self.expires_at = now + self.ttl

    def release_if_idle(self) -> bool:
        """Give the lease back if no job is live, no orphan waits and no notice is owed.

        Both in one transaction, so that no submit falls in between.
        """
        with self.store.write() as connection:
            lease.check(connection, LEASE, self.holder, self.epoch)
            work = jobs.live_work_count(connection) or orphans.open_count(connection)
            if work or any(outbox.owed(connection, one) for one in self.store.places):
                return False
            return lease.release(connection, LEASE, self.holder, self.epoch)

    def release(self) -> None:
        """Give the lease back, whatever is live."""
        with self.store.write() as connection:
            lease.release(connection, LEASE, self.holder, self.epoch)

    @contextmanager
    def write(self, *, durable: bool = False) -> Generator[Connection]:
        """Run a writing transaction that begins by making sure of the lease and the schema.

        Errors:
            LeaseLost: someone else owns it; nothing was written.
        """
        with self.store.write(durable=durable) as connection:
            check_version(connection)
            lease.check(connection, LEASE, self.holder, self.epoch)
            yield connection

    def must_hold(self) -> None:
        """Refuse to act on a lease that has run out by the clock: a call cannot be fenced by the database.

        A lease that is still good but due is renewed, so that one long tick does not lose it.

        Errors:
            LeaseLost: the lease expired, for example because this process was paused, or another worker has it.
        """
        left = self._left()
        if 0 < left < self.ttl - self.renew_after:
            self.renew()
            left = self._left()  # a renewal can take as long as the database is locked
        if left <= 0:
            raise LeaseLost("The lease ran out before the call could be made.")

    def must_still_hold(self) -> None:
        """Refuse as `must_hold` does, from another thread: without renewing. Errors: LeaseLost."""
        if self._left() <= 0:
            raise LeaseLost("The lease ran out before the call could be made.")

    def _left(self) -> float:
        return self.expires_at - self.store.clock.now()

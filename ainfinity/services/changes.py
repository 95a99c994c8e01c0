"""What changed since a cursor: how every front keeps its picture current."""

from __future__ import annotations

from collections.abc import Sequence

from ainfinity.schema.event import Event
from ainfinity.schema.views import FeedItem, MetricPoint, WorkerStatus
from ainfinity.store import events, jobs, lease, metrics, orphans, outbox, progress
from ainfinity.store.store import Store

#: Events in one item of the feed; a front that is far behind gets several.
_BATCH = 500


class ChangeService:
    """Events, metrics and the feed that joins them."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def now(self) -> tuple[int, int]:
        """Return the cursor and the revision as they are now."""
        with self.store.read() as connection:
            return events.last_seq(connection), progress.latest_rev(connection)

    def since(self, cursor: int, rev: int) -> FeedItem:
        """Return what changed after `cursor` and `rev`, all of one moment; an unchanged cursor means nothing did."""
        with self.store.read() as connection:
            new = events.read(connection, after=cursor, limit=_BATCH)
            moved = dict(progress.since(connection, rev))
            changed = jobs.by_ids(connection, [event.job_id for event in new], self.store.clock.now())
        return FeedItem(
            cursor=new[-1].seq if new else cursor,
            rev=max((entry.rev for entry in moved.values()), default=rev),
            events=tuple(new),
            jobs=tuple(changed),
            progress=moved,
        )

    def events(self, job: str = "", *, after: int = 0, limit: int = 1000) -> list[Event]:
        """Return events after the cursor, of one job or of all. Errors: NotFound."""
        with self.store.read() as connection:
            job_id = jobs.resolve(connection, job) if job else ""
            return events.read(connection, job_id, after=after, limit=limit)

    def metrics(
        self, job: str, *, names: Sequence[str] = (), after: tuple[int, int] = (0, -1), limit: int | None = None
    ) -> list[MetricPoint]:
        """Return reported steps after (attempt, step), thinned out to `limit`. Errors: NotFound."""
        with self.store.read() as connection:
            return metrics.read_points(connection, jobs.resolve(connection, job), names, after, limit)

    def worker(self) -> WorkerStatus:
        """Tell whether a worker is alive and how many jobs need one."""
        with self.store.read() as connection:
            status = lease.status(connection, "engine")
            work = jobs.live_work_count(connection)
            owed = sum(outbox.owed(connection, place) for place in self.store.places)
            waiting = orphans.open_count(connection)
        alive = status.alive(self.store.clock.now())
        return WorkerStatus(alive, status.holder, status.epoch, status.expires_at, work, status.info, owed, waiting)

"""Asking what a look showed to be needed: queues, machines, prices. On threads: no look waits for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ainfinity.compute.remote.attempts import Attempt, Attempts
from ainfinity.compute.remote.chores import Chores
from ainfinity.compute.remote.launching import Launcher
from ainfinity.compute.remote.looking import Need, note_queue
from ainfinity.compute.remote.record import Record
from ainfinity.compute.remote.rows import Gone, LogFollower, Sky
from ainfinity.compute.remote.world import World
from ainfinity.core.clock import Clock

#: Seconds between two questions about an attempt's queue: while it is set up, when its log has ended, and else, in
#: case the stream of its log is stuck.
_QUEUE_EVERY: Final = 6.0
_QUEUE_AFTER_LOG: Final = 2.0
_QUEUE_SELDOM: Final = 120.0
#: Seconds between two times that the clouds are asked about the machines of our clusters.
_REFRESH_EVERY: Final = 30.0
#: Seconds between two questions about prices of what nothing is remembered of.
_PRICES_EVERY: Final = 15.0


class Tender:
    """Looks after attempts between two looks."""

    def __init__(
        self, sky: Sky, clock: Clock, attempts: Attempts, launcher: Launcher, follower: LogFollower, chores: Chores
    ) -> None:
        self._sky = sky
        self._clock = clock
        self._attempts = attempts
        self._launcher = launcher
        self._follower = follower
        self._chores = chores
        self._refreshed = clock.now()
        self._prices: dict[str, float] = {}
        self._prices_asked = float("-inf")

    def serve(self, attempt: Attempt, need: Need, now: float) -> None:
        """Begin what an attempt needs."""
        match need:
            case Need.QUEUE:
                ended = self._follower.ended(attempt.record.name) is not None
                self._ask_queue(attempt, _QUEUE_AFTER_LOG if ended else _QUEUE_EVERY, now)
            case Need.GO_ON:
                self._launcher.go_on(attempt)
            case Need.REFRESH:
                self._refreshed = min(self._refreshed, now - _REFRESH_EVERY / 3)
            case Need.NOTHING:
                record = attempt.record
                if record.mode == "cluster" and record.job_id is not None and record.end is None:
                    self._ask_queue(attempt, _QUEUE_SELDOM, now)

    def log_ended(self, attempt: Attempt) -> None:
        """Ask at once how a job ended whose log has."""
        record = attempt.record
        if record.mode == "cluster" and record.job_id is not None and record.end is None:
            self._ask_queue(attempt, _QUEUE_AFTER_LOG, self._clock.now())

    def _ask_queue(self, attempt: Attempt, pause: float, now: float) -> None:
        due = now - attempt.queue_asked >= pause
        if due and self._chores.begin(f"queue {attempt.record.name}", lambda: self._read_queue(attempt)):
            attempt.queue_asked = now

    def _read_queue(self, attempt: Attempt) -> None:
        """Learn which job it is and how it is. A cluster without one is where a launch died: it is gone on with."""
        record = attempt.record
        try:
            job = self._launcher.find_job(record)
        except Gone:
            job = None
        if job is not None:
            with attempt.lock:
                record.job_id = job.id
                note_queue(record, job.status, self._clock.now())
                self._attempts.write(attempt)
        elif record.job_id is None:
            self._launcher.go_on(attempt)

    def refresh(self, attempts: Sequence[Attempt], now: float) -> None:
        """Have the clouds asked about our clusters now and then: SkyPilot itself may not notice for long."""
        if now - self._refreshed < _REFRESH_EVERY:
            return
        records = [one.record for one in attempts if one.record.mode == "cluster"]
        names = [record.sky_name for record in records if record.job_id is not None and not record.gone]
        # What it says is in the next look; that it is asked is what matters.
        if names and self._chores.begin("refresh", self._asking(names)):
            self._refreshed = now

    def _asking(self, names: Sequence[str]) -> Callable[[], None]:
        def ask() -> None:
            self._sky.clusters(names, refresh=True)

        return ask

    def price(self, attempts: Sequence[Attempt], world: World) -> None:
        """Learn what was given, and its price, for what has come up since."""
        wanted: dict[str, Attempt] = {}
        for attempt in attempts:
            cluster = _cluster_up(attempt.record, world)
            if cluster and attempt.record.priced != _price_key(cluster, attempt.record):
                wanted[cluster] = attempt
        if wanted:
            self._chores.begin("prices", lambda: self._read_prices(wanted))

    def price_strangers(self, strangers: Sequence[Record], now: float) -> None:
        """Note what their prices are, as far as that is known, and have the others asked for."""
        missing: list[str] = []
        for record in strangers:
            cluster = record.cluster or record.sky_name
            if (known := self._prices.get(cluster)) is not None:
                record.price_per_hour = known
            else:
                missing.append(cluster)
        if missing and now - self._prices_asked >= _PRICES_EVERY:
            self._prices_asked = now
            self._chores.begin("prices of strangers", lambda: self._read_strangers(missing))

    def _read_strangers(self, clusters: Sequence[str]) -> None:
        for cluster, row in self._sky.given(clusters).items():
            if row.price_per_hour is not None:
                self._prices[cluster] = row.price_per_hour

    def _read_prices(self, wanted: Mapping[str, Attempt]) -> None:
        for cluster, row in self._sky.given(list(wanted)).items():
            attempt = wanted.get(cluster)
            if attempt is not None:
                record = attempt.record
                with attempt.lock:
                    record.priced = _price_key(cluster, record)
                    record.price_per_hour, record.given = row.price_per_hour, row.given or record.given
                    self._attempts.write(attempt)


def _price_key(cluster: str, record: Record) -> str:
    return f"{cluster}#{record.recoveries}"


def _cluster_up(record: Record, world: World) -> str:
    """The cluster of an attempt that is up; "" where none is."""
    if record.gone:
        return ""
    if record.mode == "cluster":
        row = world.clusters.get(record.sky_name)
        return record.sky_name if row is not None and row.status == "UP" else ""
    job = world.managed_of(record)
    return record.cluster if job is not None and job.status == "RUNNING" else ""

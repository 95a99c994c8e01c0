"""Attempts on machines elsewhere, through SkyPilot: the compute port over its gateway.

An attempt is a cluster with one job in it, or a managed job, under the attempt's name, which is all it takes to find it
again. A launch is handed to the API server and not waited for: what becomes of it is seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any, Final

from ainfinity.compute.logfile import read_lines
from ainfinity.compute.port import LaunchRequest, Lines
from ainfinity.compute.remote.attempts import Attempt, Attempts
from ainfinity.compute.remote.chores import Chores
from ainfinity.compute.remote.launching import Launcher
from ainfinity.compute.remote.looking import Sight, look
from ainfinity.compute.remote.record import Record, Records, adopted_record
from ainfinity.compute.remote.rows import LogFollower, LogSource, ManagedRow, Sky, Transfer
from ainfinity.compute.remote.tending import Tender
from ainfinity.compute.remote.world import Asker, World, strangers_in
from ainfinity.core.clock import Clock, SystemClock
from ainfinity.core.config import Settings
from ainfinity.core.exceptions import ComputeUnreachable, WrongState
from ainfinity.domain.observation import Observation, Phase

#: How a line of the trainer's protocol begins: where there is one, the job runs.
_SPOKE: Final = '{"ainfinity"'
#: Seconds between two looks for managed jobs of which nothing is remembered.
_STRANGERS_EVERY: Final = 300.0


class SkyPilotCompute:
    """The compute backend `skypilot`. Its calls block, each for a limited time; a look takes two or three requests.

    `needed` tells whether any job of this backend is live: until then, SkyPilot is neither loaded nor asked.
    `adopted` names the live attempts, as `cluster:NAME` or `managed:ID`, that plain SkyPilot started.
    """

    name = "skypilot"
    lag = 15.0
    remote = True

    def __init__(
        self,
        settings: Settings,
        clock: Clock | None,
        sky: Sky,
        follower: LogFollower,
        transfer: Transfer,
        needed: Callable[[], bool] = lambda: True,
        adopted: Callable[[], Sequence[str]] = tuple,
        chores: Chores | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._sky = sky
        self._follower = follower
        self._transfer = transfer
        self._needed = needed
        self._adopted = adopted
        self._attempts = Attempts(Records(settings.attempts_dir))
        chores = chores or Chores()
        idle_minutes = ceil(settings.idle_down / 60) or None
        self._launcher = Launcher(sky, self._clock, self._attempts, chores, idle_minutes)
        self._tender = Tender(sky, self._clock, self._attempts, self._launcher, follower, chores)
        self._asker = Asker(sky)
        self._managed_strangers: list[ManagedRow] = []
        self._strangers_asked = float("-inf")

    def capacity(self) -> int | None:
        """Return None: SkyPilot, and what is beneath it, queues by itself."""
        return None

    def observe_all(self) -> Mapping[str, Observation]:
        """Return what is known of every attempt, with one request for clusters and one for managed jobs.

        Errors:
            ComputeUnreachable: SkyPilot's API server does not answer.
        """
        for name in self._adopted():
            self._attempts.get_or_make(adopted_record(name))
        attempts = self._attempts.all()
        if not attempts and not self._needed():
            return {}
        world = self._asker.ask(attempts, self._clock.now())
        now = self._clock.now()
        strangers = self._meet_strangers(world, now)
        seen = [self._look(attempt, world, now) for attempt in attempts]
        self._tender.refresh(attempts, now)
        self._tender.price(attempts, world)
        return strangers | {one.name: one for one in seen if one is not None}

    def _look(self, attempt: Attempt, world: World, now: float) -> Observation | None:
        """Look at one attempt; None for one that never reached SkyPilot, as far as anything shows."""
        record = attempt.record
        with attempt.lock:
            cluster, managed = world.clusters.get(record.sky_name), world.managed_of(record)
            if record.mode == "cluster":
                managed = None
                record.request_id = record.request_id or world.launch_of(record.sky_name)
            if attempt.is_unsent and cluster is None and managed is None and not record.request_id:
                return None
            launching = attempt.posting or bool(record.request_id)
            log = self._follower.ended(record.name)
            sight = Sight(now, self._attempts.records.deadline, launching, cluster, managed, log, attempt.odd_since)
            said = look(record, sight)
            attempt.odd_since = (attempt.odd_since or now) if said.odd else None
            self._attempts.write(attempt)
        self._follow(record)
        self._tender.serve(attempt, said.need, now)
        return said.observation

    def _follow(self, record: Record) -> None:
        """Have the log followed for as long as there may be more of it."""
        if not record.gone and (record.request_id or record.job_id is not None):
            cluster = record.sky_name if record.mode == "cluster" else record.cluster
            self._follower.follow(record.name, LogSource(record.mode, record.request_id, cluster, record.job_id))

    def _meet_strangers(self, world: World, now: float) -> dict[str, Observation]:
        """What bears an attempt's name though nothing is remembered of it."""
        if now - self._strangers_asked >= _STRANGERS_EVERY:
            self._managed_strangers = self._sky.managed_jobs(name="ain-", live=True)
            self._strangers_asked = now
        known = [one.record for one in self._attempts.all()]
        clusters = world.clusters.keys() - {record.sky_name for record in known if record.mode == "cluster"}
        jobs = {record.job_id for record in known if record.mode == "managed"}
        names = {record.name for record in known}
        strangers = self._attempts.meet(
            strangers_in(
                {name: world.clusters[name] for name in clusters},
                [row for row in self._managed_strangers if row.id not in jobs and row.name not in names],
            )
        )
        self._tender.price_strangers(strangers, now)
        return {one.name: _stranger(one) for one in strangers}

    def launch(self, request: LaunchRequest) -> str:
        """Have SkyPilot launch the attempt, or find it launched, and return its handle.

        Errors:
            SkyRefused: SkyPilot will not launch this. InvalidSpec: it cannot be rendered into a task.
            FolderUnwritable: nothing was launched. ComputeUnreachable: it may have been launched or not.
        """
        return self._launcher.launch(request)

    def stop(self, name: str) -> None:
        """End everything of the attempt, a launch that is under way first. `observe_all` tells when nothing is left.

        Errors:
            ComputeUnreachable: no answer; it must be asked for again.
        """
        self._launcher.stop(name)
        self._strangers_asked = float("-inf")  # whether that ended it, if it is one, is to be seen soon

    def read_lines(self, offsets: Mapping[str, int]) -> Mapping[str, Lines]:
        """Return new complete output lines after each byte offset, of what was brought home.

        Errors:
            ComputeUnreachable: a log is there and cannot be read.
        """
        try:
            return {name: self._read_lines(name, offset) for name, offset in offsets.items()}
        except OSError as error:
            raise ComputeUnreachable(f"A log cannot be read: {error.strerror}.") from error

    def _read_lines(self, name: str, offset: int) -> Lines:
        # Most logs have nothing new at most ticks, and to ask for a size costs a fifth of opening the file.
        log = f"{self._attempts.records.folder}/{name}/log.txt"
        if _size(log) > offset:
            found = read_lines(Path(log), offset, lambda: self._follower.ended(name) is not None)
        else:
            found = Lines((), offset)
        attempt = self._attempts.take_on(name)
        if attempt is not None and attempt.record.end is None:
            attempt.record.ran = attempt.record.ran or any(line.startswith(_SPOKE) for line in found.lines)
            if self._follower.ended(name) is not None:
                self._tender.log_ended(attempt)
        return found

    def verify(self, name: str, files: Sequence[Mapping[str, Any]]) -> str:
        """See to it that the files lie where they outlive the machine, as they were written; "" or what is wrong.

        Errors:
            ComputeUnreachable: they cannot be had now.
        """
        attempt = self._attempts.take_on(name)
        if attempt is None:
            return f"{name} was never launched from here"
        return self._transfer.verify(name, attempt.record.job, attempt.record.storage, files)

    def extend(self, name: str, deadline: float | None) -> None:
        """Have the attempt end itself at another time, in Unix seconds; None takes its limit away.

        Errors:
            ComputeUnreachable: it was not told. WrongState: it is over.
        """
        attempt = self._attempts.take_on(name)
        if attempt is None or attempt.record.end is not None or attempt.record.stopped_at is not None:
            raise WrongState(f"{name} is over.", hint="Retry the job with a later deadline.")
        record = attempt.record
        self._transfer.extend(name, record.sky_name if record.mode == "cluster" else record.cluster, deadline)
        self._attempts.records.set_deadline(name, deadline)

    def release(self, name: str) -> None:
        """Forget an attempt that is over; its log and output stay.

        Errors:
            ComputeUnreachable: its record cannot be put away.
        """
        self._follower.drop(name)
        self._managed_strangers = [row for row in self._managed_strangers if row.name != name]
        try:
            self._attempts.forget(name)
        except OSError as error:
            raise ComputeUnreachable(f"The record of {name} cannot be put away: {error.strerror}.") from error

    def close(self) -> None:
        """End the threads that follow logs."""
        self._follower.close()


def _stranger(record: Record) -> Observation:
    """What is to be said of a machine that bears an attempt's name, and of which nothing is remembered."""
    return Observation(
        record.name,
        Phase.PENDING,
        machine=True,
        handle=record.handle,
        given=record.given,
        price_per_hour=record.price_per_hour,
        launched_at=record.billed_from,
    )


def _size(path: str) -> int:
    """How many bytes a file has; -1 where there is none. Raises OSError."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return -1

"""What is to be said of an attempt elsewhere, from its record and from what SkyPilot says now. It asks nobody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from ainfinity.compute.remote.record import End, Record
from ainfinity.compute.remote.rows import ClusterRow, LogEnd, ManagedRow
from ainfinity.compute.remote.states import CLUSTER, CLUSTER_JOB, CONTROLLER_FAILED, MANAGED, State, state_of
from ainfinity.domain.observation import Observation, Phase

#: How long the end of a job waits for the rest of its log. Seconds.
DRAIN = 60.0
#: How long a cluster must look broken, or be missing, before that is believed. Seconds.
BROKEN = 45.0
MISSING = 12.0
#: A deadline is sent in whole seconds, so the machine may keep it by as much too early.
_WHOLE = 1.0


class Need(Enum):
    """What must be done or asked before more can be said."""

    NOTHING = auto()
    #: Which job of the cluster's queue is it, and how is it?
    QUEUE = auto()
    #: Nothing is at work on a launch that had begun: it must be launched again under its name.
    GO_ON = auto()
    #: What does the cloud say of the cluster's machines?
    REFRESH = auto()


@dataclass(slots=True)
class Sight:
    """What is known of one attempt now, and since when something is odd."""

    now: float
    #: Returns when an attempt was to end itself.
    deadline: Callable[[str], float | None]
    #: A launch is under way, here or at the API server.
    launching: bool = False
    cluster: ClusterRow | None = None
    managed: ManagedRow | None = None
    log: LogEnd | None = None
    #: Since when its cluster or job is missing or broken, without a break.
    odd_since: float | None = None

    def odd_for(self) -> float:
        """How long it has been odd; 0 where it is not."""
        return 0.0 if self.odd_since is None else self.now - self.odd_since


@dataclass(frozen=True, slots=True)
class Said:
    """What follows. `odd`: its cluster or job is missing or broken at this look."""

    observation: Observation
    need: Need = Need.NOTHING
    odd: bool = False


def look(record: Record, sight: Sight) -> Said:
    """Return what is to be said; notes in the record what was learnt for good."""
    _note(record, sight)
    machine = has_machine(record, sight)
    if record.stopped_at is not None and (record.end is None or record.end.at > record.stopped_at):
        return _stopped(record, machine)
    if record.end is None and sight.log is not None and record.mode == "cluster":
        _note_end(record, state_of(CLUSTER_JOB, sight.log.status), "", sight.now)
    if record.end is not None:
        return _ended(record, sight, machine)
    if sight.launching:
        return Said(_observe(record, Phase.PENDING, machine=True))
    if record.mode == "managed":
        return _managed(record, sight)
    return _cluster(record, sight)


def has_machine(record: Record, sight: Sight) -> bool:
    """Whether anything of it may still run or cost."""
    if sight.launching:
        return True
    if record.mode == "cluster":
        return sight.cluster is not None
    job = sight.managed
    if job is None:
        return False
    return not record.swept if job.status == CONTROLLER_FAILED else not job.is_done


def _note(record: Record, sight: Sight) -> None:
    if sight.cluster is not None:
        record.seen = True
        record.given = sight.cluster.given or record.given
        record.billed_from = record.billed_from or sight.cluster.launched_at
    job = sight.managed
    if job is not None:
        record.seen = True
        record.job_id = job.id
        record.given = job.given or record.given
        record.cluster = job.cluster or record.cluster
        record.recoveries = job.recoveries
        record.billed_from = record.billed_from or job.started_at
        state = state_of(MANAGED, job.status)
        if state.is_end and record.end is None:
            _note_end(record, state, job.reason, sight.now)


def _note_end(record: Record, state: State, reason: str, now: float) -> None:
    if state.is_end:
        words = f"{state.reason} {reason}" if state.code and reason else state.reason or reason
        record.end = End(state.phase.value, state.exit_code, state.code, words, now)


def note_queue(record: Record, status: str, now: float) -> None:
    """Note in the record what the queue of its cluster says of its job."""
    state = state_of(CLUSTER_JOB, status)
    if state.phase == Phase.RUNNING:
        record.ran = True
    if record.end is None:
        _note_end(record, state, "", now)


def _stopped(record: Record, machine: bool) -> Said:
    record.gone = not machine
    if machine:
        return Said(_observe(record, Phase.RUNNING if record.ran else Phase.PENDING, machine=True))
    return Said(_observe(record, Phase.EXITED, machine=False, reason="stopped"))


def _ended(record: Record, sight: Sight, machine: bool) -> Said:
    end = record.end
    assert end is not None
    # What it wrote last comes first: it often says how it ended.
    drained = sight.log is not None or record.job_id is None or sight.now - end.at >= DRAIN
    if not drained:
        return Said(_observe(record, Phase.RUNNING if record.ran else Phase.SETTING_UP, machine=True))
    code, reason = end.exit_code, end.reason
    if code is not None and code != 0 and not end.code:
        if sight.log is not None and sight.log.exit_code is not None:
            code = sight.log.exit_code
        deadline = sight.deadline(record.name)
        if deadline is not None and end.at >= deadline - _WHOLE:
            reason = "deadline"
    phase = Phase(end.phase)
    return Said(_observe(record, phase, machine, code if phase == Phase.EXITED else None, reason, end.code))


def _managed(record: Record, sight: Sight) -> Said:
    job = sight.managed
    if job is not None:
        state = state_of(MANAGED, job.status)
        record.ran = record.ran or state.phase == Phase.RUNNING
        return Said(_observe(record, state.phase, machine=True, reason=job.reason))
    if not record.seen:
        return Said(_observe(record, Phase.PENDING, machine=True), Need.GO_ON, odd=True)
    return _missing(record, sight, "SkyPilot no longer knows the managed job")


def _cluster(record: Record, sight: Sight) -> Said:
    row = sight.cluster
    if row is None:
        if not record.seen:
            return Said(_observe(record, Phase.PENDING, machine=True), Need.GO_ON, odd=True)
        return _missing(record, sight, "its cluster is gone, and its job did not say how it ended")
    state = state_of(CLUSTER, row.status)
    if state.is_end:
        return Said(_observe(record, state.phase, machine=True, reason=state.reason))
    if record.job_id is None and record.is_adopted:
        return Said(_observe(record, Phase.RUNNING, machine=True), Need.QUEUE)
    if record.job_id is None:
        # The API server was killed in mid-launch. Whether the job was handed over before that, its queue tells.
        return Said(_observe(record, Phase.PENDING, machine=True), Need.QUEUE, odd=True)
    phase = Phase.RUNNING if record.ran else Phase.SETTING_UP
    if row.status == "INIT":
        if sight.odd_for() >= BROKEN:
            reason = row.reason or "some of its machines are gone"
            return Said(_observe(record, Phase.VANISHED, machine=True, reason=reason), odd=True)
        return Said(_observe(record, phase, machine=True), Need.REFRESH, odd=True)
    return Said(
        _observe(record, phase, machine=True), Need.QUEUE if sight.log is not None or not record.ran else Need.NOTHING
    )


def _missing(record: Record, sight: Sight, reason: str) -> Said:
    phase = Phase.RUNNING if record.ran else Phase.PENDING
    # One look that misses it may be a look at a server that is just starting.
    if sight.odd_for() < MISSING:
        return Said(_observe(record, phase, machine=True), odd=True)
    return Said(_observe(record, Phase.VANISHED, machine=False, reason=reason), odd=True)


def _observe(
    record: Record,
    phase: Phase,
    machine: bool,
    exit_code: int | None = None,
    reason: str = "",
    code: str = "",
) -> Observation:
    return Observation(
        name=record.name,
        phase=phase,
        machine=machine,
        handle=record.handle,
        exit_code=exit_code,
        reason=reason,
        code=code,
        price_per_hour=record.price_per_hour,
        given=record.given,
        recoveries=record.recoveries,
        launched_at=record.billed_from,
    )

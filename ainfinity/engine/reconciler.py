"""The loop that makes the backends match the wish.

Each tick looks at everything afresh: what changed in the store, what each backend says of all its attempts at once,
what the trainers wrote; then asks `decide` about each job, records what it says, and makes the calls it wants. Nothing
is remembered that a restart would miss except how long something has been absent, which then only takes longer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ainfinity.compute.port import Compute
from ainfinity.core.config import Settings
from ainfinity.core.exceptions import ComputeUnreachable
from ainfinity.domain.decide import NOTHING, Call, Decision, Seen, decide
from ainfinity.domain.ending import UNFETCHED
from ainfinity.domain.fold import AttemptFold
from ainfinity.domain.observation import Observation, Phase
from ainfinity.domain.places import backend_of
from ainfinity.domain.schedule import Waiting, admit
from ainfinity.engine.backends import Backend, Look
from ainfinity.engine.calls import Caller
from ainfinity.engine.fence import Fence
from ainfinity.engine.intake import IntakeWriter
from ainfinity.engine.launch import SecretSource, name_prefix
from ainfinity.engine.record import Recorder
from ainfinity.engine.rules import RuleBook
from ainfinity.engine.signs import Signs
from ainfinity.engine.sweeper import Sweeper
from ainfinity.engine.verify import Verifier, exported_files, verify_now
from ainfinity.engine.view import LiveJob, LiveView
from ainfinity.schema.event import EventType
from ainfinity.schema.states import AttemptState, Desired, JobState
from ainfinity.store import jobs

_log = logging.getLogger(__name__)

Probe = Callable[[str], None]

_ON_THE_WAY = frozenset({AttemptState.INTENDED, AttemptState.LAUNCHING, AttemptState.STOPPING})


def no_probe(step: str) -> None:
    """Do nothing at a named step; tests put a crash here."""


@dataclass(slots=True)
class _Sighting:
    """What this worker remembers of one backend between ticks."""

    found: Mapping[str, Observation] = field(default_factory=dict[str, Observation])
    absent_since: dict[str, float] = field(default_factory=dict[str, float])
    stopped_at: dict[str, float] = field(default_factory=dict[str, float])
    strangers: set[str] = field(default_factory=set[str])
    in_contact: bool = True
    signs: Signs = field(default_factory=Signs)


class Reconciler:
    """One worker's engine. All that it depends on is given to it."""

    def __init__(
        self,
        fence: Fence,
        computes: Mapping[str, Compute],
        settings: Settings,
        secrets: SecretSource,
        probe: Probe = no_probe,
        verifier: Verifier = verify_now,
    ) -> None:
        self.fence = fence
        self.clock = fence.store.clock
        self.backends = {
            name: Backend(compute, self.clock, fence.store.bell.ring) for name, compute in computes.items()
        }
        self.settings = settings
        self.probe = probe
        self.verifier = verifier
        self.view = LiveView()
        self.recorder = Recorder(fence, settings)
        self.intake = IntakeWriter(fence, probe)
        self.caller = Caller(fence, self.recorder, settings, secrets, probe)
        self.sweeper = Sweeper(fence, settings, probe)
        self._sightings = {name: _Sighting() for name in computes}
        self._prefix = ""
        self.rules = RuleBook(settings)

    def tick(self) -> None:
        """Do one round. Errors: LeaseLost, DatabaseLocked and other store errors; the caller decides about another."""
        for backend in self.backends.values():
            backend.collect()
        self._refresh()
        for name, backend in self.backends.items():
            self._reconcile(name, backend)

    def _refresh(self) -> None:
        with self.fence.store.read() as connection:
            self.view.refresh(connection)

    def _jobs_of(self, backend: str) -> list[LiveJob]:
        """The jobs whose attempt runs on a backend, or whose infrastructure belongs to it."""
        mine: list[LiveJob] = []
        for job in self.view.jobs.values():
            attempt = job.live_attempt
            if backend == (attempt.backend if attempt is not None else backend_of(job.infra)):
                mine.append(job)
        return mine

    def _reconcile(self, name: str, backend: Backend) -> None:
        sighting = self._sightings[name]
        mine = self._jobs_of(name)
        try:
            look = backend.look(self._pause(mine))
            if look is not None:
                self.probe("observe:seen")
                sighting.found = look.found
                sighting.in_contact = True
            undrained = self.intake.take_all(backend.compute, mine, sighting.found)
        except ComputeUnreachable as error:
            self._lose_contact(name, sighting, mine, str(error))
            return
        if (look is not None and self._regain_contact(mine)) or self.intake.wrote:
            self._refresh()
            mine = self._jobs_of(name)
        if look is None:
            # Without a new word nothing is believed of what runs; what needs no word is done at once.
            mine = [job for job in mine if sighting.in_contact and _needs_no_look(job)]
            asked = self.clock.now()
        else:
            asked = look.asked
            self._remember_absent(backend, sighting, mine, look)
        decided = self._decide_all(backend, sighting, mine, undrained, asked)
        recorded = self.recorder.record(decided, name)
        if decided:
            self.probe("observe:recorded")
        self._call(backend, sighting, recorded)
        if look is not None:
            self._clear_up(backend, sighting, look)

    def _pause(self, mine: Iterable[LiveJob]) -> float:
        """How long to leave a remote backend alone between two looks: shortly while a machine comes or goes."""
        live = (job.live_attempt for job in mine)
        soon = any(one is not None and (one.state in _ON_THE_WAY or one.trainer_end) for one in live)
        return self.settings.tick if soon else self.settings.poll

    def _decide_all(
        self, backend: Backend, sighting: _Sighting, mine: list[LiveJob], undrained: set[str], now: float
    ) -> list[tuple[LiveJob, Decision]]:
        admitted = self._admit(backend.compute, mine)
        decided: list[tuple[LiveJob, Decision]] = []
        for job in mine:
            attempt = job.live_attempt
            if attempt is None:
                seen = Seen(now, admitted=job.job.id in admitted)
            elif backend.is_busy("launch", attempt.name) and not _is_ending(job):
                continue  # what it comes to is recorded first
            else:
                seen = self._seen(backend, sighting, job, attempt, undrained, now)
            decision = decide(job.job, job.attempt, seen, self.rules.rules_for(job.spec, job.job, backend.compute.lag))
            if decision is not NOTHING:
                decided.append((job, decision))
        return decided

    def _seen(
        self,
        backend: Backend,
        sighting: _Sighting,
        job: LiveJob,
        attempt: AttemptFold,
        undrained: set[str],
        now: float,
    ) -> Seen:
        # While a launch is at work, that nothing is there yet means nothing.
        launching = backend.is_busy("launch", attempt.name)
        observation = None if launching else sighting.found.get(attempt.name)
        since = sighting.absent_since.get(attempt.name, now)
        stopped = sighting.stopped_at.get(attempt.name)
        sign = (None, None)
        if observation is not None:
            mark = (job.log_offset, observation.phase, observation.recoveries)
            sign = sighting.signs.look(attempt.name, mark, now)
        return Seen(
            now,
            observation,
            now - since,
            None if stopped is None else now - stopped,
            self._export_problem(backend.compute, job, observation),
            attempt.name not in undrained,
            last_sign=sign[0],
            watched_since=sign[1],
        )

    def _admit(self, compute: Compute, mine: Iterable[LiveJob]) -> set[str]:
        waiting: list[Waiting] = []
        used = 0
        for job in mine:
            if job.live_attempt is not None:
                used += job.slots
            elif job.job.state == JobState.QUEUED and job.job.desired == Desired.RUN:
                waiting.append(Waiting(job.job.id, job.slots, job.priority, (job.job.submitted_at, job.job.id)))
        return set(admit(waiting, used, compute.capacity())) if waiting else set()

    def _export_problem(self, compute: Compute, job: LiveJob, found: Observation | None) -> str | None:
        """Verify the export of an attempt that ended; None where it is not the moment, or no answer came."""
        attempt = job.live_attempt
        if found is None or found.phase not in (Phase.EXITED, Phase.VANISHED) or attempt is None:
            return None
        if attempt.state == AttemptState.STOPPING or attempt.trainer_end != "finished":
            return None
        if attempt.keep_reason and attempt.code != UNFETCHED.code:
            return None  # it was verified before, and its machine is only kept
        return self.verifier(compute, attempt.name, exported_files(job.job.result.get("finished", {})))

    def _remember_absent(self, backend: Backend, sighting: _Sighting, mine: list[LiveJob], look: Look) -> None:
        names = {job.live_attempt.name for job in mine if job.live_attempt is not None}
        absent = {name for name in names - look.found.keys() if not backend.is_busy("launch", name)}
        sighting.absent_since = {name: sighting.absent_since.get(name, look.asked) for name in absent}
        sighting.stopped_at = {name: at for name, at in sighting.stopped_at.items() if name in names}
        sighting.signs.keep(names)

    def _lose_contact(self, name: str, sighting: _Sighting, mine: list[LiveJob], reason: str) -> None:
        """Keep every last state and say since when it is stale. What was absent must be seen absent anew."""
        _log.warning("no contact with %s: %s", name, reason)
        sighting.absent_since.clear()
        sighting.in_contact = False
        sighting.signs.lose()
        fresh = [job for job in mine if job.live_attempt is not None and job.job.stale_since is None]
        lost = Decision(((EventType.CONTACT_LOST, {"backend": name, "reason": reason}),))
        self.recorder.record([(job, lost) for job in fresh], name)

    def _regain_contact(self, mine: list[LiveJob]) -> bool:
        stale = [job for job in mine if job.job.stale_since is not None]
        back = Decision(((EventType.CONTACT_RESTORED, {}),))
        self.recorder.record([(job, back) for job in stale], "")
        return bool(stale)

    def _call(self, backend: Backend, sighting: _Sighting, recorded: list[tuple[LiveJob, Decision]]) -> None:
        for job, decision in recorded:
            match decision.call:
                case Call.LAUNCH:
                    self.caller.launch(backend, job.job.id, decision.attempt)
                case Call.STOP if job.attempt is not None:
                    sighting.stopped_at[job.attempt.name] = self.clock.now()
                    self.caller.stop(backend, job.attempt.name)
                case Call.EXTEND if job.attempt is not None:
                    self.caller.extend(backend, job.job.id, job.attempt, decision.deadline)
                case _:
                    pass

    def _ours(self) -> str:
        if not self._prefix:
            with self.fence.store.read() as connection:
                self._prefix = name_prefix(jobs.installation(connection))
        return self._prefix

    def _clear_up(self, backend: Backend, sighting: _Sighting, look: Look) -> None:
        """Release what is over; see to what runs though no live job owns it, once it was seen so on two ticks.

        Attempts of another installation, which may share the backend, are none of our business.
        """
        self._refresh()
        owned = {job.live_attempt.name for job in self.view.jobs.values() if job.live_attempt is not None}
        others = sorted(look.found.keys() - owned)
        strangers = {name for name in others if name.startswith(self._ours()) and look.found[name].machine}
        for name in others:
            # What was adopted is looked at for as long as its job is live, whatever becomes of its machine.
            if _is_adopted(name) or (name.startswith(self._ours()) and name not in strangers):
                self.caller.release(backend, name)
        if backend.compute.remote:
            for name in self.sweeper.sweep(backend.compute, look.found, owned, look.asked):
                self.caller.stop(backend, name)
            return
        for name in sorted(strangers & sighting.strangers):
            _log.warning("stopping %s, which no live job owns", name)
            self.caller.stop(backend, name)
        sighting.strangers = strangers


def _is_adopted(name: str) -> bool:
    """Whether an attempt was started with plain SkyPilot: its name tells its kind, as `cluster:NAME`."""
    return ":" in name


def _is_ending(job: LiveJob) -> bool:
    return job.job.desired == Desired.CANCEL or (job.attempt is not None and job.attempt.state == AttemptState.STOPPING)


def _needs_no_look(job: LiveJob) -> bool:
    """Whether what comes next for a job does not depend on what its backend says: a launch, or a cancel's begin."""
    attempt = job.live_attempt
    return attempt is None or (job.job.desired == Desired.CANCEL and attempt.state != AttemptState.STOPPING)

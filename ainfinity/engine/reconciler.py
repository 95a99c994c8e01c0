"""The loop that makes the backends match the wish.

Each tick looks at everything afresh: what changed in the store, what each backend says of all its attempts at once,
what the trainers wrote; then asks `decide` about each job, records what it says, and makes the calls it wants. Nothing
is remembered that a restart would miss except how long something has been absent, which then only takes longer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ainfinity.compute.port import Compute
from ainfinity.core.config import Settings
from ainfinity.core.exceptions import ComputeUnreachable
from ainfinity.domain.decide import NOTHING, Call, Decision, Rules, Seen, decide
from ainfinity.domain.observation import Observation, Phase
from ainfinity.domain.schedule import Waiting, admit
from ainfinity.engine.calls import Caller
from ainfinity.engine.fence import Fence
from ainfinity.engine.intake import IntakeWriter
from ainfinity.engine.launch import SecretSource, name_prefix
from ainfinity.engine.record import Recorder
from ainfinity.engine.verify import Verifier, exported_files, verify_now
from ainfinity.engine.view import LiveJob, LiveView
from ainfinity.schema.event import EventType
from ainfinity.schema.states import AttemptState, Desired, JobState
from ainfinity.store import jobs

_log = logging.getLogger(__name__)

Probe = Callable[[str], None]


def no_probe(step: str) -> None:
    """Do nothing at a named step; tests put a crash here."""


def _recovers(policy: Mapping[str, Any]) -> bool:
    """Whether a lost attempt is followed by another; specs stored earlier call it `on_lost`."""
    return policy.get("recover", "never" if policy.get("on_lost") == "fail" else "auto") == "auto"


@dataclass(slots=True)
class _Sighting:
    """What this worker remembers of one backend between ticks."""

    absent_since: dict[str, float] = field(default_factory=dict[str, float])
    stopped_at: dict[str, float] = field(default_factory=dict[str, float])
    strangers: set[str] = field(default_factory=set[str])


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
        self.computes = computes
        self.settings = settings
        self.probe = probe
        self.verifier = verifier
        self.view = LiveView()
        self.recorder = Recorder(fence, settings)
        self.intake = IntakeWriter(fence, probe)
        self.caller = Caller(fence, self.recorder, settings, secrets, probe)
        self._sightings = {name: _Sighting() for name in computes}
        self._prefix = ""
        self._rules: dict[tuple[int, bool, float], Rules] = {}

    def tick(self) -> None:
        """Do one round. Errors: LeaseLost, DatabaseLocked and other store errors; the caller decides about another."""
        self._refresh()
        for name, compute in self.computes.items():
            self._reconcile(name, compute)

    def _refresh(self) -> None:
        with self.fence.store.read() as connection:
            self.view.refresh(connection)

    def _jobs_of(self, backend: str) -> list[LiveJob]:
        """The jobs whose attempt runs on a backend, or whose infrastructure belongs to it."""
        mine: list[LiveJob] = []
        for job in self.view.jobs.values():
            attempt = job.live_attempt
            if backend == (attempt.backend if attempt is not None else job.infra):
                mine.append(job)
        return mine

    def _reconcile(self, name: str, compute: Compute) -> None:
        sighting = self._sightings[name]
        mine = self._jobs_of(name)
        # An answer is as old as its question. Were absence counted up to now, a slow round would pass for a long one.
        asked = self.clock.now()
        try:
            found = compute.observe_all()
            self.probe("observe:seen")
            undrained = self.intake.take_all(compute, mine, found)
        except ComputeUnreachable as error:
            self._lose_contact(name, sighting, mine, str(error))
            return
        if self._regain_contact(mine) or self.intake.wrote:
            self._refresh()
            mine = self._jobs_of(name)
        self._remember_absent(sighting, mine, found, asked)
        decided = self._decide_all(compute, sighting, mine, found, undrained, asked)
        recorded = self.recorder.record(decided, name)
        if decided:
            self.probe("observe:recorded")
        self._call(compute, sighting, recorded)
        self._clear_up(compute, sighting, found)

    def _decide_all(
        self,
        compute: Compute,
        sighting: _Sighting,
        mine: list[LiveJob],
        found: Mapping[str, Observation],
        undrained: set[str],
        now: float,
    ) -> list[tuple[LiveJob, Decision]]:
        admitted = self._admit(compute, mine)
        decided: list[tuple[LiveJob, Decision]] = []
        for job in mine:
            attempt = job.live_attempt
            seen: Seen
            if attempt is None:
                seen = Seen(now, admitted=job.job.id in admitted)
            else:
                observation = found.get(attempt.name)
                since = sighting.absent_since.get(attempt.name, now)
                stopped = sighting.stopped_at.get(attempt.name)
                seen = Seen(
                    now,
                    observation,
                    now - since,
                    None if stopped is None else now - stopped,
                    self._export_problem(compute, job, observation),
                    attempt.name not in undrained,
                )
            decision = decide(job.job, job.attempt, seen, self._rules_for(job, compute.lag))
            if decision is not NOTHING:
                decided.append((job, decision))
        return decided

    def _admit(self, compute: Compute, mine: Iterable[LiveJob]) -> set[str]:
        waiting: list[Waiting] = []
        used = 0
        for job in mine:
            if job.live_attempt is not None:
                used += job.slots
            elif job.job.state == JobState.QUEUED and job.job.desired == Desired.RUN:
                waiting.append(Waiting(job.job.id, job.slots, job.priority, (job.job.submitted_at, job.job.id)))
        return set(admit(waiting, used, compute.capacity())) if waiting else set()

    def _rules_for(self, job: LiveJob, lag: float) -> Rules:
        policy = job.spec["policy"]
        key = (int(policy.get("retries", 0)), _recovers(policy), lag)
        if key not in self._rules:
            # A backend without lag knows at once what is there; elsewhere "not found" needs the grace to be believed.
            grace = max(self.settings.grace, lag) if lag else 0.0
            self._rules[key] = Rules(grace=grace, retries=key[0], resume_lost=key[1])
        return self._rules[key]

    def _export_problem(self, compute: Compute, job: LiveJob, found: Observation | None) -> str | None:
        """Verify the export of an attempt that ended; None where it is not the moment, or no answer came."""
        attempt = job.live_attempt
        if found is None or found.phase not in (Phase.EXITED, Phase.VANISHED) or attempt is None:
            return None
        if attempt.state == AttemptState.STOPPING or attempt.trainer_end != "finished":
            return None
        return self.verifier(compute, attempt.name, exported_files(job.job.result.get("finished", {})))

    def _remember_absent(
        self, sighting: _Sighting, mine: list[LiveJob], found: Mapping[str, Observation], now: float
    ) -> None:
        names = {job.live_attempt.name for job in mine if job.live_attempt is not None}
        absent = names - found.keys()
        sighting.absent_since = {name: sighting.absent_since.get(name, now) for name in absent}
        sighting.stopped_at = {name: at for name, at in sighting.stopped_at.items() if name in names}

    def _lose_contact(self, name: str, sighting: _Sighting, mine: list[LiveJob], reason: str) -> None:
        """Keep every last state and say since when it is stale. What was absent must be seen absent anew."""
        _log.warning("no contact with %s: %s", name, reason)
        sighting.absent_since.clear()
        fresh = [job for job in mine if job.live_attempt is not None and job.job.stale_since is None]
        lost = Decision(((EventType.CONTACT_LOST, {"backend": name, "reason": reason}),))
        self.recorder.record([(job, lost) for job in fresh], name)

    def _regain_contact(self, mine: list[LiveJob]) -> bool:
        stale = [job for job in mine if job.job.stale_since is not None]
        back = Decision(((EventType.CONTACT_RESTORED, {}),))
        self.recorder.record([(job, back) for job in stale], "")
        return bool(stale)

    def _call(self, compute: Compute, sighting: _Sighting, recorded: list[tuple[LiveJob, Decision]]) -> None:
        for job, decision in recorded:
            match decision.call:
                case Call.LAUNCH:
                    self.caller.launch(compute, job.job.id, decision.attempt)
                case Call.STOP if job.attempt is not None:
                    sighting.stopped_at[job.attempt.name] = self.clock.now()
                    self.caller.stop(compute, job.attempt.name)
                case _:
                    pass

    def _ours(self) -> str:
        if not self._prefix:
            with self.fence.store.read() as connection:
                self._prefix = name_prefix(jobs.installation(connection))
        return self._prefix

    def _clear_up(self, compute: Compute, sighting: _Sighting, found: Mapping[str, Observation]) -> None:
        """Release what is over; stop what runs though no live job owns it, once it was seen so on two ticks.

        Attempts of another installation, which may share the backend, are none of our business.
        """
        self._refresh()
        owned = {job.live_attempt.name for job in self.view.jobs.values() if job.live_attempt is not None}
        strangers = {name for name in found if name not in owned and name.startswith(self._ours())}
        for name in sorted(strangers):
            if not found[name].machine:
                self.caller.release(compute, name)
            elif name in sighting.strangers:
                _log.warning("stopping %s, which no live job owns", name)
                self.caller.stop(compute, name)
        sighting.strangers = strangers

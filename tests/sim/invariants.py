"""What must hold after every step of a simulation, whatever went wrong, and what must hold in the end."""

from __future__ import annotations

from collections import Counter

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ainfinity.compute.fake import STEPS, Machine, World
from ainfinity.core.config import Settings
from ainfinity.domain.cost import total
from ainfinity.domain.fold import AttemptFold, JobFold, fold, fold_attempt, fold_job
from ainfinity.schema.event import TERMINAL_EVENTS, Event, EventType
from ainfinity.schema.states import (
    ATTEMPT_STAGE,
    ATTEMPT_TERMINAL,
    JOB_MOVES,
    JOB_TERMINAL,
    AttemptState,
    Desired,
    JobState,
    may_move_attempt,
)
from ainfinity.schema.training_job import Policy
from ainfinity.store import events
from ainfinity.store.events import ATTEMPT, JOB, attempt_fold, job_fold
from ainfinity.store.metrics import read_points
from tests.sim.machinery import SimNotifier

#: Seconds that a few looks, calls and their repetition take on a calm day.
LOOKS = 60.0


def _gone(machine: Machine, now: float) -> float:
    """When nothing of a machine was left; now where it still is."""
    if machine.stopped is not None:
        return machine.stopped if machine.lingers else min(machine.stopped, machine.ends)
    return now if machine.alive(now) else machine.ends


class Broken(AssertionError):
    """An invariant does not hold."""


def check(holds: bool, what: str) -> None:
    if not holds:
        raise Broken(what)


class Witness:
    """Reads along what is stored, folds it by itself, and compares it with the rows and with the truth."""

    def __init__(
        self, world: World, notifiers: dict[str, SimNotifier], capacity: int | None, intents: bool, settings: Settings
    ) -> None:
        self.world = world
        self.notifiers = notifiers
        self.capacity = capacity
        #: Whether a machine needs a recorded intent; a control that records late is to be convicted by its duplicates.
        self.intents = intents
        #: Seconds that a machine gets past its deadline, and that it is waited for; since when nothing fails any more.
        self.margin, self.unfetched = 3 * settings.stop_grace, settings.keep_unfetched
        self.calm_since = 0.0
        self.policies: dict[str, Policy] = {}
        self.cursor = 0
        self.history: list[Event] = []
        self.jobs: dict[str, JobFold] = {}
        self.attempts: dict[str, AttemptFold] = {}
        self.keys: dict[tuple[str, int], str] = {}
        self.trainer: Counter[tuple[str, int, str, float]] = Counter()

    def look(self, connection: Connection, now: float) -> None:
        """Check everything that must hold at any moment."""
        new = events.read(connection, after=self.cursor)
        for event in new:
            check(event.seq == self.cursor + 1, f"seq {event.seq} follows {self.cursor}")
            self.cursor = event.seq
            self._follow(event)
        self.history += new
        if new:
            self._compare(connection, {event.job_id for event in new})
        self.look_at_the_truth(now)

    def look_at_the_truth(self, now: float) -> None:
        """Check which machines run and what was told."""
        self._machines(now)
        self._notices()

    def _follow(self, event: Event) -> None:
        old = self.jobs.get(event.job_id) or JobFold(event.job_id)
        job = self.jobs[event.job_id] = fold_job(old, event)
        check(job.state == old.state or job.state in JOB_MOVES[old.state], f"{old.state} -> {job.state}: {event}")
        if event.type in TERMINAL_EVENTS:
            check(job.state != old.state, f"a job ended again: {event}")
        if event.type == EventType.ATTEMPT_INTENDED:
            check(old.desired == Desired.RUN, f"a launch of a cancelled job: {event}")
        if event.type.startswith("trainer."):
            mark = (event.job_id, event.attempt, event.type, event.at)
            self.trainer[mark] += 1
            check(self.trainer[mark] == 1, f"a trainer's line was taken in twice: {event}")
        if event.attempt:
            self._follow_attempt(event, (event.job_id, event.attempt))

    def _follow_attempt(self, event: Event, key: tuple[str, int]) -> None:
        old = self.attempts.get(self.keys.get(key, ""))
        new = fold_attempt(old, event)
        check(new is not None, f"an event of no attempt: {event}")
        if new is None:
            return
        self.keys[key] = new.name
        self.attempts[new.name] = new
        if old is not None:
            check(ATTEMPT_STAGE[new.state] >= ATTEMPT_STAGE[old.state], f"{old.state} -> {new.state}: {event}")
            check(old.state == new.state or may_move_attempt(old.state, new.state), f"{old.state}: {event}")

    def _compare(self, connection: Connection, ids: set[str]) -> None:
        for row in connection.execute(sa.select(JOB).where(JOB.c.id.in_(ids))):
            check(job_fold(row) == self.jobs[row.id], f"the row of {row.id} is not the fold of its events")
        for row in connection.execute(sa.select(ATTEMPT).where(ATTEMPT.c.job_id.in_(ids))):
            check(attempt_fold(row) == self.attempts[row.name], f"the row of {row.name} is not the fold of its events")

    def _machines(self, now: float) -> None:
        for name, copies in self.world.machines.items():
            # What vanished without a trace before anyone saw it cannot be told from what never came to be.
            seen = [one for one in copies if one.end != "unlisted" or one.ends >= copies[-1].begins]
            check(len(seen) == 1 or len(copies) == 1, f"{name} was launched {len(copies)} times")
            check(name in self.attempts or not self.intents, f"{name} runs without an intent")
        running = self.world.running(now)
        for name in running:
            if name not in self.attempts:
                continue
            attempt = self.attempts[name]
            check(attempt.state not in ATTEMPT_TERMINAL, f"{name} runs on, though it is {attempt.state}")
            job = self.jobs[attempt.job_id]
            check(job.state not in JOB_TERMINAL, f"{name} runs on, though its job is {job.state}")
            check(job.attempt == attempt.number, f"{name} runs beside attempt {job.attempt}")
        if self.capacity is not None:
            slots = [self.world.machines[name][0].slots for name in running]
            check(sum(slots) <= self.capacity or len(slots) == 1, f"{slots} slots taken of {self.capacity}")

    def _notices(self) -> None:
        for place, notifier in self.notifiers.items():
            told = Counter(entry[0] for entry in notifier.heard)
            for notice, count in told.items():
                check(count == 1, f"notice {notice} was told {count} times at {place}")

    def in_the_end(self, connection: Connection, now: float, silent: set[str]) -> None:
        """Check what must hold once nothing fails any more and everything had its time."""
        self.look(connection, now)
        for job in self.jobs.values():
            check(job.state in JOB_TERMINAL, f"{job.id} is still {job.state}")
        check(not self.world.running(now), f"still running: {self.world.running(now)}")
        by_job: dict[str, list[Event]] = {}
        for event in self.history:
            by_job.setdefault(event.job_id, []).append(event)
        for job_id, mine in by_job.items():
            job, attempts = fold(job_id, mine)
            check(job == self.jobs[job_id], f"{job_id} folds otherwise as a whole")
            check(
                attempts == {one.number: self.attempts[one.name] for one in attempts.values()}, f"attempts of {job_id}"
            )
            self._output(connection, job, attempts)
            for attempt in attempts.values():
                self._verdict(attempt)
                self._bounds(attempt, now)
            self._money(job, attempts, now)
        ends = Counter((e.job_id, str(e.type)) for e in self.history if e.type in TERMINAL_EVENTS)
        for place, notifier in self.notifiers.items():
            told = Counter((job, kind) for _, job, kind, _ in notifier.heard if kind in TERMINAL_EVENTS)
            owed = Counter({key: count for key, count in ends.items() if key[0] not in silent})
            check(told == owed, f"told at {place} {told}, owed {owed}")

    def _bounds(self, attempt: AttemptFold, now: float) -> None:
        """In good contact no machine outlives its deadline and what it was kept for by more than a few looks."""
        for machine in self.world.machines.get(attempt.name, ())[-1:]:
            gone = _gone(machine, now)
            told = [value for value in (attempt.deadline, attempt.extend_to) if value is not None]
            kept = attempt.keep_until or 0.0
            waited = 0.0 if attempt.fetching_since is None else attempt.fetching_since + self.unfetched
            end = min(machine.ends, now) if machine.lingers else 0.0
            allowed = max([*told, kept, waited, end, self.calm_since]) + self.margin + LOOKS
            check(bool(told), f"{attempt.name} has no deadline")
            check(gone <= allowed, f"{attempt.name} ran {gone - allowed:.0f} s past its bounds")

    def _money(self, job: JobFold, attempts: dict[int, AttemptFold], now: float) -> None:
        """In good contact no machine of a job is there for more than a few looks after its budget was truly spent."""
        budget = self.policies[job.id].max_cost if job.id in self.policies else None
        machines = [one for attempt in attempts.values() for one in self.world.machines.get(attempt.name, ())[-1:]]
        if budget is None or not machines:
            return

        def true_cost(at: float) -> float | None:
            return total(
                None if price is None else seconds * price / 3600
                for machine in machines
                for seconds, price in machine.paid(at)
                if seconds > 0
            )

        whole = true_cost(now)
        if whole is None or whole < budget:
            return
        low, spent = machines[0].begins, now
        for _ in range(40):
            middle = (low + spent) / 2
            low, spent = (low, middle) if (true_cost(middle) or 0.0) >= budget else (middle, spent)
        late = max(_gone(machine, now) for machine in machines) - max(spent, self.calm_since) - self.margin - LOOKS
        check(late <= 0, f"{job.id} cost ${whole:.2f} of ${budget:.2f}, {late:.0f} s after that was spent")

    def _verdict(self, attempt: AttemptFold) -> None:
        """An attempt ends as its machine did, unless it was stopped or refused."""
        copies = self.world.machines.get(attempt.name)
        end = copies[-1].end if copies else "refused"
        if end == "unlisted" and attempt.code == "refused":  # it was launched again, and refused
            end = "refused"
        lost = end in ("preempted", "vanished", "unlisted")
        ended_here = self._ended_here(attempt)
        match attempt.state:
            case AttemptState.SUCCEEDED:
                check(end == "finished", f"{attempt.name} succeeded, but {end}")
            case AttemptState.FAILED:
                causes = {"failed": {"oom"}, "finished": {"export_invalid", "export_unfetched"}}.get(end, {end})
                check(attempt.code in causes | ended_here, f"{attempt.name} failed for {attempt.code}, but {end}")
            case AttemptState.LOST:
                check(lost or attempt.code in ended_here, f"{attempt.name} is lost, but {end}")
            case _:
                pass

    def _ended_here(self, attempt: AttemptFold) -> set[str]:
        """The causes for which an attempt may have been ended from here, whatever its machine did."""
        causes: set[str] = set()
        policy = self.policies.get(attempt.job_id)
        if policy is None or attempt.stopping_at is None:
            return causes
        if policy.max_cost is not None:
            causes.add("max_cost")
        if policy.recover == "never" and any(one.recovery for one in self.world.machines.get(attempt.name, ())):
            causes.add("preempted")
        if policy.on_stuck != "alert" and attempt.stuck_since is not None:
            causes.add("stuck")
        if attempt.deadline is not None and attempt.stopping_at >= attempt.deadline + self.margin:
            causes.add("deadline")
        return causes

    def _output(self, connection: Connection, job: JobFold, attempts: dict[int, AttemptFold]) -> None:
        points = read_points(connection, job.id, (), (0, -1), None)
        steps = Counter((point.attempt, point.step) for point in points)
        check(all(count == 1 for count in steps.values()), f"steps of {job.id} stored twice: {steps}")
        if job.state == JobState.SUCCEEDED:
            check(attempts[job.attempt].trainer_end == "finished", f"{job.id} succeeded without a result")
            own = [point for point in points if point.attempt == job.attempt]
            check(len(own) == STEPS, f"{len(own)} steps of {job.id} are stored, {STEPS} were made")

"""The verbs on the machine of a live job: a later deadline, a longer stay, an end at once."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from sqlalchemy.engine import Connection

from ainfinity.core.exceptions import NotSupported, Refused, UsageError, WrongState
from ainfinity.domain.cost import affordable_until
from ainfinity.domain.fold import AttemptFold, JobFold
from ainfinity.domain.places import backend_of
from ainfinity.schema.actor import Actor, Role
from ainfinity.schema.event import Event, EventType
from ainfinity.schema.states import ATTEMPT_LIVE, AttemptState, Desired
from ainfinity.schema.views import JobRow
from ainfinity.store import events, jobs
from ainfinity.store.store import Store

#: The longest that one wish may ask for, in seconds: a year.
_LONGEST = 366 * 86400.0


class MachineVerbs:
    """The part of `TrainingService` that is about machines."""

    store: Store

    @abstractmethod
    def stop_job(self, job: str, actor: Actor) -> JobRow:
        """Wish a job ended."""

    def extend_job(self, job: str, seconds: float, actor: Actor) -> JobRow:
        """Wish the deadline of a job's running attempt moved by so many seconds; the engine tells its machine.

        Errors:
            WrongState: it has no attempt that goes on, or one without a deadline. UsageError.
            Refused: policy.max_cost leaves no more time.
        """
        actor.must_be(Role.LAUNCHER, "extend jobs")
        _check(seconds)
        with self.store.write() as connection:
            row, fold, attempt = self._at_work(connection, job, "extend")
            known = attempt.deadline if attempt.extend_to is None else attempt.extend_to
            if known is None:
                raise WrongState(f"{row.name} has no deadline: there is nothing to extend.")
            if attempt.keep_reason:
                raise WrongState(
                    f"{row.name} has ended, and its machine is kept.",
                    hint=f"Keep it longer: `ainfinity keep {row.name} 2h`.",
                )
            wanted = min(known + seconds, self._affordable(connection, fold))
            if wanted <= known:
                raise Refused(
                    f"policy.max_cost of {row.name} leaves no more time.",
                    hint=f"Give it more in a new launch: `ainfinity retry {row.name} policy.max_cost=…`.",
                    field="policy.max_cost",
                )
            data = {"deadline": wanted, "seconds": seconds}
            return self._wish(connection, EventType.EXTEND_REQUESTED, fold, actor, "extend", data)

    def keep_job(self, job: str, seconds: float, actor: Actor) -> JobRow:
        """Wish the machine of a live job to stay for so many seconds from now, though its attempt may end before that.

        Errors:
            WrongState: it has no machine. NotSupported: it runs on this machine, which stays anyway. UsageError.
        """
        actor.must_be(Role.LAUNCHER, "keep machines")
        _check(seconds)
        with self.store.write() as connection:
            row, fold, attempt = self._at_work(connection, job, "keep")
            if backend_of(row.infra) == "local":
                raise NotSupported(f"{row.name} runs on this machine, which stays.", hint="Nothing needs to be kept.")
            until = max(self.store.clock.now() + seconds, attempt.keep_until or 0.0)
            data = {"until": until, "seconds": seconds}
            return self._wish(connection, EventType.KEEP_REQUESTED, fold, actor, "keep", data)

    def teardown_job(self, job: str, actor: Actor) -> JobRow:
        """Wish the machine of a live job gone at once: one that is kept is ended, a job that runs is cancelled.

        Errors:
            WrongState: it has no machine.
        """
        actor.must_be(Role.LAUNCHER, "tear down machines")
        with self.store.write() as connection:
            _, fold, attempt = self._at_work(connection, job, "tear down")
            if attempt.keep_reason or attempt.fetching_since is not None:
                return self._wish(connection, EventType.TEARDOWN_REQUESTED, fold, actor, "teardown", {})
        return self.stop_job(job, actor)

    def _at_work(self, connection: Connection, job: str, verb: str) -> tuple[JobRow, JobFold, AttemptFold]:
        """Return a job with its attempt that has, or is to get, a machine. Errors: NotFound, WrongState."""
        job_id = jobs.resolve(connection, job)
        row, fold = self._row(connection, job_id), jobs.fold_of(connection, job_id)
        attempt = events.get_attempt(connection, job_id, fold.attempt)
        if attempt is None or attempt.state not in ATTEMPT_LIVE:
            raise WrongState(f"{row.name} is {row.state}: it has no machine to {verb}.")
        if attempt.state == AttemptState.STOPPING or fold.desired == Desired.CANCEL:
            raise WrongState(f"{row.name} is {row.state}: its machine is being ended.")
        self._must_be_ours(row)
        return row, fold, attempt

    def _must_be_ours(self, row: JobRow) -> None:
        if row.origin and not row.claimed:
            raise WrongState(
                f"{row.name} was started with plain SkyPilot and is only shown.",
                hint=f"`ainfinity adopt --{row.origin.replace(':', ' ', 1)} --claim` makes it ours to end.",
            )

    def _affordable(self, connection: Connection, fold: JobFold) -> float:
        """Until when the job's budget lasts; for ever without one, or while the price is unknown."""
        spec, *_ = jobs.spec_and_plan(connection, fold.id)
        policy: dict[str, Any] = spec.get("policy") or {}
        budget: float | None = policy.get("max_cost")
        if budget is None or fold.price_per_hour is None:
            return math.inf
        return affordable_until(fold, budget, fold.price_per_hour, self.store.clock.now())

    def _wish(
        self, connection: Connection, kind: EventType, fold: JobFold, actor: Actor, action: str, data: dict[str, Any]
    ) -> JobRow:
        now = self.store.clock.now()
        self._append(connection, [Event(kind, fold.id, now, actor.name, fold.attempt, data)])
        jobs.audit(connection, now, actor.name, action, fold.id, **data)
        return self._row(connection, fold.id)

    def _row(self, connection: Connection, job_id: str) -> JobRow:
        return jobs.get(connection, job_id, self.store.clock.now())

    def _append(self, connection: Connection, made: Sequence[Event]) -> None:
        events.append(connection, made, self.store.places)


def _check(seconds: float) -> None:
    if not 0 < seconds <= _LONGEST:
        raise UsageError("The time must be above 0 and at most a year.", hint="Give it as 30m or 2h.", field="TIME")

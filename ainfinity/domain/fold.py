"""From events to state: the job and attempt rows are the fold of a job's events, and of nothing else.

A fold is total: events of a newer version, or in an order that should not occur, leave the state as it is instead of
failing, because whoever reads an event log late cannot mend it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ainfinity.domain.attempts import ON_REQUEST, AttemptFold, fold_attempt
from ainfinity.domain.cost import free, metered
from ainfinity.schema.event import Event, EventType
from ainfinity.schema.numbers import number, whole
from ainfinity.schema.states import JOB_MOVES, JOB_TERMINAL, Desired, JobState

__all__ = ["ON_REQUEST", "AttemptFold", "JobFold", "fold", "fold_attempt", "fold_job"]


@dataclass(frozen=True, slots=True)
class JobFold:
    """A job as its events tell it. `attempt` is the number of the newest attempt, 0 before the first."""

    id: str
    state: JobState = JobState.PLANNING
    desired: Desired = Desired.RUN
    attempt: int = 0
    plan_hash: str = ""
    approved_hash: str = ""
    submitted_at: float = 0.0
    queued_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    stale_since: float | None = None
    error_code: str = ""
    error_message: str = ""
    #: New attempts so far because the job itself failed, and because its machine vanished without new progress.
    failures: int = 0
    losses: int = 0
    checkpoint_step: int | None = None
    #: The checkpoint that the next attempt must start from; None means the newest.
    resume_step: int | None = None
    #: "", or of an adopted job `cluster:NAME` or `managed:ID`; it is ours to end once it is claimed.
    origin: str = ""
    claimed: bool = False
    #: The meter of all its attempts: dollars an hour of the newest, since when, and dollars before that.
    price_per_hour: float | None = None
    priced_from: float | None = None
    spent: float | None = 0.0
    #: Until when the machine of an attempt that ended is kept, and since when one gives no sign.
    kept_until: float | None = None
    stuck_since: float | None = None
    result: dict[str, Any] = field(default_factory=dict[str, Any])


def _move(job: JobFold, state: JobState, **changes: Any) -> JobFold:
    """Move the job along the table of states with these changes, or leave all of it as it is."""
    allowed = state == job.state or state in JOB_MOVES[job.state]
    return replace(job, state=state, **changes) if allowed else job


def _submitted(job: JobFold, event: Event) -> JobFold:
    return _move(job, JobState.PLANNING, submitted_at=event.at)


def _queued(job: JobFold, event: Event) -> JobFold:
    if job.state in JOB_TERMINAL:  # only a retry brings a finished job back
        return job
    changes: dict[str, Any] = {"queued_at": event.at}
    match event.data.get("cause"):
        case "failure":
            changes["failures"] = job.failures + 1
        case "loss":
            changes["losses"] = job.losses + 1
        case _:
            pass
    return _move(job, JobState.QUEUED, **changes)


def _retried(job: JobFold, event: Event) -> JobFold:
    return _move(
        job,
        JobState.QUEUED,
        desired=Desired.RUN,
        queued_at=event.at,
        finished_at=None,
        error_code="",
        error_message="",
        failures=0,
        losses=0,
        resume_step=whole(event.data.get("from_step")),
        # It goes on from a checkpoint, so what was measured before any training still is the "before".
        result={key: value for key, value in job.result.items() if key == "eval_first"},
    )


def _cancel_requested(job: JobFold, event: Event) -> JobFold:
    return _move(job, JobState.CANCELLING, desired=Desired.CANCEL)


def _ended(state: JobState) -> Callable[[JobFold, Event], JobFold]:
    def apply(job: JobFold, event: Event) -> JobFold:
        if job.state == state:
            return job
        return _move(
            job,
            state,
            finished_at=event.at,
            stale_since=None,
            error_code=str(event.data.get("code", "")),
            error_message=str(event.data.get("message", "")),
        )

    return apply


def _adopted(job: JobFold, event: Event) -> JobFold:
    return _move(job, JobState.QUEUED, queued_at=event.at, origin=str(event.data.get("origin", "")))


def _attempt_intended(job: JobFold, event: Event) -> JobFold:
    # The number is kept whatever the state is: it must never be given out twice.
    again = event.attempt == job.attempt
    job = replace(job, attempt=max(job.attempt, event.attempt))
    if not again:
        job = replace(job, price_per_hour=free(str(event.data.get("backend", ""))), priced_from=None)
    return _move(job, JobState.LAUNCHING, resume_step=None)


def _attempt_running(job: JobFold, event: Event) -> JobFold:
    return _move(job, JobState.RUNNING, started_at=job.started_at or event.at, stale_since=None)


def _attempt_over(job: JobFold, event: Event) -> JobFold:
    return replace(job, kept_until=None, stuck_since=None)


def _kept(job: JobFold, event: Event) -> JobFold:
    return replace(job, kept_until=number(event.data.get("until")))


def _keep_requested(job: JobFold, event: Event) -> JobFold:
    return job if job.kept_until is None else _kept(job, event)


def _of_newest(apply: Callable[[JobFold, Event], JobFold] | None = None) -> Callable[[JobFold, Event], JobFold]:
    """Take in an event of the newest attempt, its meter first, and pass over one of an attempt before."""

    def newest(job: JobFold, event: Event) -> JobFold:
        if event.attempt < job.attempt:
            return job
        changes = metered(job, event)
        job = replace(job, **changes) if changes else job
        return job if apply is None else apply(job, event)

    return newest


def _trainer_result(key: str) -> Callable[[JobFold, Event], JobFold]:
    def apply(job: JobFold, event: Event) -> JobFold:
        return replace(job, result={**job.result, key: event.data})

    return apply


def _trainer_eval(job: JobFold, event: Event) -> JobFold:
    result = dict(job.result)
    result.setdefault("eval_first", event.data)
    result["eval_last"] = event.data
    return replace(job, result=result)


def _trainer_checkpoint(job: JobFold, event: Event) -> JobFold:
    step = whole(event.data.get("step"))
    if step is None or (job.checkpoint_step is not None and step <= job.checkpoint_step):
        return job
    return replace(job, checkpoint_step=step, losses=0)


_JOB: dict[str, Callable[[JobFold, Event], JobFold]] = {
    EventType.SUBMITTED: _submitted,
    EventType.PLANNED: lambda job, event: replace(job, plan_hash=str(event.data.get("plan_hash", ""))),
    EventType.APPROVAL_REQUESTED: lambda job, event: _move(job, JobState.AWAITING_APPROVAL),
    EventType.APPROVED: lambda job, event: replace(job, approved_hash=str(event.data.get("plan_hash", ""))),
    EventType.REJECTED: _ended(JobState.REJECTED),
    EventType.QUEUED: _queued,
    EventType.RETRIED: _retried,
    EventType.CANCEL_REQUESTED: _cancel_requested,
    EventType.SUCCEEDED: _ended(JobState.SUCCEEDED),
    EventType.FAILED: _ended(JobState.FAILED),
    EventType.CANCELLED: _ended(JobState.CANCELLED),
    EventType.ATTEMPT_INTENDED: _attempt_intended,
    EventType.ATTEMPT_SETTING_UP: _of_newest(),
    EventType.ATTEMPT_RUNNING: _of_newest(_attempt_running),
    EventType.ATTEMPT_RECOVERING: _of_newest(lambda job, event: _move(job, JobState.RECOVERING)),
    EventType.ATTEMPT_STOPPING: _of_newest(),
    EventType.ATTEMPT_GIVEN: _of_newest(),
    EventType.ATTEMPT_STUCK: _of_newest(lambda job, event: replace(job, stuck_since=event.at)),
    EventType.ATTEMPT_UNSTUCK: _of_newest(lambda job, event: replace(job, stuck_since=None)),
    EventType.ATTEMPT_KEPT: _of_newest(_kept),
    EventType.KEEP_REQUESTED: _of_newest(_keep_requested),
    EventType.TEARDOWN_REQUESTED: lambda job, event: replace(job, kept_until=None),
    **dict.fromkeys(
        (
            EventType.ATTEMPT_SUCCEEDED,
            EventType.ATTEMPT_FAILED,
            EventType.ATTEMPT_CANCELLED,
            EventType.ATTEMPT_LOST,
        ),
        _of_newest(_attempt_over),
    ),
    EventType.ADOPTED: _adopted,
    EventType.CLAIMED: lambda job, event: replace(job, claimed=True),
    EventType.CONTACT_LOST: lambda job, event: replace(job, stale_since=job.stale_since or event.at),
    EventType.CONTACT_RESTORED: lambda job, event: replace(job, stale_since=None),
    EventType.TRAINER_STARTED: _trainer_result("started"),
    EventType.TRAINER_FINISHED: _trainer_result("finished"),
    EventType.TRAINER_EVAL: _trainer_eval,
    EventType.TRAINER_CHECKPOINT: _trainer_checkpoint,
}


def fold_job(job: JobFold, event: Event) -> JobFold:
    """Return the job after `event`; the same object where the event does not concern the row."""
    apply = _JOB.get(event.type)
    return job if apply is None else apply(job, event)


def fold(job_id: str, events: Iterable[Event]) -> tuple[JobFold, dict[int, AttemptFold]]:
    """Fold a job's whole history, in order of `seq`, into its state and its attempts by number."""
    job = JobFold(job_id)
    attempts: dict[int, AttemptFold] = {}
    for event in events:
        job = fold_job(job, event)
        if event.attempt:
            attempt = fold_attempt(attempts.get(event.attempt), event)
            if attempt is not None:
                attempts[event.attempt] = attempt
    return job, attempts

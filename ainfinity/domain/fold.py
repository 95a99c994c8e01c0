"""From events to state: the job and attempt rows are the fold of a job's events, and of nothing else.

A fold is total: events of a newer version, or in an order that should not occur, leave the state as it is instead of
failing, because whoever reads an event log late cannot mend it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, cast

from ainfinity.schema.event import Event, EventType
from ainfinity.schema.states import (
    ATTEMPT_TERMINAL,
    JOB_MOVES,
    JOB_TERMINAL,
    AttemptState,
    Desired,
    JobState,
    may_move_attempt,
)


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
    result: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class AttemptFold:
    """One attempt as its events tell it."""

    job_id: str
    number: int
    name: str
    state: AttemptState = AttemptState.INTENDED
    backend: str = ""
    handle: str = ""
    intent_at: float = 0.0
    calls: int = 0
    started_at: float | None = None
    stopping_at: float | None = None
    finished_at: float | None = None
    exit_code: int | None = None
    outcome: str = ""
    code: str = ""
    reason: str = ""
    resume_step: int | None = None
    deadline: float | None = None
    #: What the trainer itself said last: "", "finished", "stopped" or "failed", with its cause.
    trainer_end: str = ""
    trainer_code: str = ""
    trainer_message: str = ""
    provenance: dict[str, Any] = field(default_factory=dict[str, Any])


def _move(job: JobFold, state: JobState, **changes: Any) -> JobFold:
    """Move the job along the table of states with these changes, or leave all of it as it is."""
    allowed = state == job.state or state in JOB_MOVES[job.state]
    return replace(job, state=state, **changes) if allowed else job


def _whole(value: Any) -> int | None:
    """Return a whole number as it is, and None for all else: a trainer's line can hold anything."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


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
        resume_step=_whole(event.data.get("from_step")),
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


def _attempt_intended(job: JobFold, event: Event) -> JobFold:
    # The number is kept whatever the state is: it must never be given out twice.
    job = replace(job, attempt=max(job.attempt, event.attempt))
    return _move(job, JobState.LAUNCHING, resume_step=None)


def _attempt_running(job: JobFold, event: Event) -> JobFold:
    if event.attempt < job.attempt:
        return job
    return _move(job, JobState.RUNNING, started_at=job.started_at or event.at, stale_since=None)


def _attempt_recovering(job: JobFold, event: Event) -> JobFold:
    return job if event.attempt < job.attempt else _move(job, JobState.RECOVERING)


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
    step = _whole(event.data.get("step"))
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
    EventType.ATTEMPT_RUNNING: _attempt_running,
    EventType.ATTEMPT_RECOVERING: _attempt_recovering,
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


_ATTEMPT_STATE: dict[str, AttemptState] = {
    EventType.ATTEMPT_LAUNCHED: AttemptState.LAUNCHING,
    EventType.ATTEMPT_ADOPTED: AttemptState.LAUNCHING,
    EventType.ATTEMPT_SETTING_UP: AttemptState.SETTING_UP,
    EventType.ATTEMPT_RUNNING: AttemptState.RUNNING,
    EventType.ATTEMPT_RECOVERING: AttemptState.RECOVERING,
    EventType.ATTEMPT_STOPPING: AttemptState.STOPPING,
    EventType.ATTEMPT_SUCCEEDED: AttemptState.SUCCEEDED,
    EventType.ATTEMPT_FAILED: AttemptState.FAILED,
    EventType.ATTEMPT_CANCELLED: AttemptState.CANCELLED,
    EventType.ATTEMPT_LOST: AttemptState.LOST,
}

_TRAINER_ENDS: dict[str, str] = {
    # A trainer that starts again after a recovery takes back what it said before.
    EventType.TRAINER_STARTED: "",
    EventType.TRAINER_FINISHED: "finished",
    EventType.TRAINER_STOPPED: "stopped",
    EventType.TRAINER_FAILED: "failed",
}


def _intended(attempt: AttemptFold | None, event: Event) -> AttemptFold | None:
    data = event.data
    provenance = data.get("provenance")
    if attempt is None:
        return AttemptFold(
            job_id=event.job_id,
            number=event.attempt,
            name=str(data.get("name", "")),
            backend=str(data.get("backend", "")),
            intent_at=event.at,
            calls=1,
            resume_step=_whole(data.get("resume_step")),
            deadline=_number(data.get("deadline")),
            provenance=cast("dict[str, Any]", provenance) if isinstance(provenance, dict) else {},
        )
    if attempt.state != AttemptState.INTENDED:
        return attempt
    # A call that is made again has its whole time before it: the first one came to nothing.
    deadline = _number(data.get("deadline", attempt.deadline))
    return replace(attempt, intent_at=event.at, calls=attempt.calls + 1, deadline=deadline)


def fold_attempt(attempt: AttemptFold | None, event: Event) -> AttemptFold | None:
    """Return the attempt that `event` concerns after it; None while it does not exist."""
    if event.type == EventType.ATTEMPT_INTENDED:
        return _intended(attempt, event)
    if attempt is None:
        return None
    if (end := _TRAINER_ENDS.get(event.type)) is not None:
        # A trainer that has spoken was launched, whatever became of the reply.
        state = AttemptState.LAUNCHING if attempt.state == AttemptState.INTENDED else attempt.state
        return replace(
            attempt,
            state=state,
            trainer_end=end,
            trainer_code=str(event.data.get("code") or event.data.get("reason") or "") if end else "",
            trainer_message="; ".join(str(event.data[key]) for key in ("message", "hint") if event.data.get(key))
            if end
            else "",
        )
    state = _ATTEMPT_STATE.get(event.type)
    if state is None or not may_move_attempt(attempt.state, state):
        return attempt
    data = event.data
    changes: dict[str, Any] = {"state": state}
    for key in ("handle", "outcome", "code", "reason"):
        if data.get(key) is not None:
            changes[key] = str(data[key])
    if (code := _whole(data.get("exit_code"))) is not None:
        changes["exit_code"] = code
    if state == AttemptState.RUNNING and attempt.started_at is None:
        changes["started_at"] = event.at
    if state == AttemptState.STOPPING and attempt.stopping_at is None:
        changes["stopping_at"] = event.at
    if state in ATTEMPT_TERMINAL:
        changes["finished_at"] = event.at
    return replace(attempt, **changes)


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

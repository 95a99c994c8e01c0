"""What to do next with one job: a pure function of what is wished, what is recorded, and what the backend says.

`decide` returns events to record and at most one call to make after they are committed. It never looks at a clock and
is never asked while the backend does not answer: lost contact is not failure. Repeating it on the same input is
harmless, and everything that it wants is wanted again on the next tick if it did not come about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ainfinity.core.constants import EXIT_SECOND_COPY
from ainfinity.domain.fold import AttemptFold, JobFold
from ainfinity.domain.observation import Observation, Phase
from ainfinity.schema.event import EventType
from ainfinity.schema.states import ATTEMPT_TERMINAL, JOB_TERMINAL, AttemptState, Desired, JobState, Outcome


class Call(StrEnum):
    """What to ask of the backend once the events are committed."""

    NONE = "none"
    LAUNCH = "launch"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings and the policy that a decision depends on. Times are seconds."""

    #: How long an attempt must be missing before that is believed; never less than the backend's lag.
    grace: float = 10.0
    #: How long after a stop call it is made again.
    stop_again: float = 5.0
    retries: int = 0
    resume_lost: bool = True
    #: How often a job is relaunched after its machine vanished without any new checkpoint in between.
    max_losses: int = 5


@dataclass(frozen=True, slots=True)
class Seen:
    """What this tick knows of the job's attempt.

    `observation` is None where the backend does not list it, since `absent_for` seconds as far as this worker knows.
    `stop_called_ago` is None before this worker's first stop call. `export_problem` is "" for a verified export, a text
    for a bad one and None where it was not looked at.
    """

    now: float
    observation: Observation | None = None
    absent_for: float = 0.0
    stop_called_ago: float | None = None
    export_problem: str | None = None
    #: Whether every line that the ended attempt wrote has been taken in.
    lines_drained: bool = True
    #: Whether the backend has room for this job now.
    admitted: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """Events (type, data) about the attempt `attempt` or, where it is 0, about the job; then one call."""

    events: tuple[tuple[EventType, Mapping[str, Any]], ...] = ()
    call: Call = Call.NONE
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class _Ending:
    outcome: Outcome
    code: str = ""
    message: str = ""
    exit_code: int | None = None


NOTHING = Decision()

_ATTEMPT_END = {
    Outcome.SUCCEEDED: EventType.ATTEMPT_SUCCEEDED,
    Outcome.FAILED: EventType.ATTEMPT_FAILED,
    Outcome.CANCELLED: EventType.ATTEMPT_CANCELLED,
    Outcome.LOST: EventType.ATTEMPT_LOST,
}


def decide(job: JobFold, attempt: AttemptFold | None, seen: Seen, rules: Rules) -> Decision:
    """Return the next thing to do for a job; nothing for one that is over. `attempt` is its newest one."""
    if job.state in JOB_TERMINAL:
        return NOTHING
    if attempt is None or attempt.state in ATTEMPT_TERMINAL:
        return _between_attempts(job, seen)
    if attempt.state == AttemptState.STOPPING:
        return _stopping(job, attempt, seen, rules)
    if job.desired == Desired.CANCEL:
        return _stop(attempt, _Ending(Outcome.CANCELLED), "the owner cancelled the job")
    if seen.observation is None:
        return _absent(attempt, seen, rules)
    return _present(job, attempt, seen.observation, seen, rules)


def _between_attempts(job: JobFold, seen: Seen) -> Decision:
    if job.desired == Desired.CANCEL:
        return Decision(((EventType.CANCELLED, {}),))
    if job.state == JobState.QUEUED and seen.admitted:
        return Decision(((EventType.ATTEMPT_INTENDED, {}),), Call.LAUNCH, job.attempt + 1)
    return NOTHING


def _absent(attempt: AttemptFold, seen: Seen, rules: Rules) -> Decision:
    """The backend answers and does not list the attempt."""
    since_intent = seen.now - attempt.intent_at
    if min(since_intent, seen.absent_for) < rules.grace:
        return NOTHING
    if attempt.state == AttemptState.INTENDED:
        return Decision(((EventType.ATTEMPT_INTENDED, {}),), Call.LAUNCH, attempt.number)
    return _stop(attempt, _Ending(Outcome.LOST, "lost"), "the backend no longer knows it")


def _present(job: JobFold, attempt: AttemptFold, found: Observation, seen: Seen, rules: Rules) -> Decision:
    events: list[tuple[EventType, Mapping[str, Any]]] = []
    if attempt.state == AttemptState.INTENDED:
        events.append((EventType.ATTEMPT_ADOPTED, {"handle": found.handle}))
    match found.phase:
        case Phase.SETTING_UP if attempt.state in (AttemptState.INTENDED, AttemptState.LAUNCHING):
            events.append((EventType.ATTEMPT_SETTING_UP, {}))
        case Phase.RUNNING if attempt.state != AttemptState.RUNNING:
            events.append((EventType.ATTEMPT_RUNNING, {"handle": found.handle or None}))
        case Phase.RECOVERING if attempt.state != AttemptState.RECOVERING:
            events.append((EventType.ATTEMPT_RECOVERING, {"reason": found.reason}))
        case Phase.EXITED | Phase.VANISHED:
            ending = _ending(attempt, found, seen)
            if ending is not None:
                return _end(job, attempt, ending, found, events, rules)
        case _:
            pass
    return Decision(tuple(events), attempt=attempt.number) if events else NOTHING


def _ending(attempt: AttemptFold, found: Observation, seen: Seen) -> _Ending | None:
    """How an attempt ended that is no longer at work; None while that cannot be told yet."""
    if not seen.lines_drained:
        return None
    code = found.exit_code
    if attempt.trainer_end == "finished" and code in (0, None):
        if seen.export_problem is None:
            return None
        if seen.export_problem:
            return _Ending(Outcome.FAILED, "export_invalid", seen.export_problem, code)
        return _Ending(Outcome.SUCCEEDED, exit_code=code)
    if code == EXIT_SECOND_COPY or attempt.trainer_code == "second_copy":
        return _Ending(
            Outcome.LOST, "second_copy", attempt.trainer_message or "another copy held its checkpoints", code
        )
    if found.phase == Phase.VANISHED:
        return _Ending(Outcome.LOST, "lost", found.reason or "the machine or its supervisor vanished", code)
    if attempt.trainer_end == "failed":
        return _Ending(Outcome.FAILED, attempt.trainer_code or "failed", attempt.trainer_message, code)
    if found.reason == "deadline" or (attempt.trainer_end == "stopped" and attempt.trainer_code == "deadline"):
        return _Ending(
            Outcome.FAILED,
            "deadline",
            "The attempt reached its time limit. Raise policy.max_duration and retry: it resumes from its checkpoint.",
            code,
        )
    if attempt.trainer_end == "stopped" or found.reason == "terminated":
        return _Ending(Outcome.LOST, "preempted", found.reason or "it was told to stop by someone else", code)
    if code == 0:
        return _Ending(Outcome.FAILED, "no_result", "The process ended without saying that it finished.", code)
    return _Ending(Outcome.FAILED, "exit_code", f"The process exited with code {code}; see the log.", code)


def _end(
    job: JobFold,
    attempt: AttemptFold,
    ending: _Ending,
    found: Observation,
    events: list[tuple[EventType, Mapping[str, Any]]],
    rules: Rules,
) -> Decision:
    """Tear down what still runs first; an attempt is over only when its machine is gone."""
    if found.machine:
        stop = _stop(attempt, ending, ending.message)
        return Decision((*events, *stop.events), stop.call, attempt.number)
    return Decision((*events, *_over(job, attempt, ending, rules)), attempt=attempt.number)


def _stop(attempt: AttemptFold, ending: _Ending, reason: str) -> Decision:
    data = {
        "outcome": ending.outcome.value,
        "reason": reason,
        "code": ending.code,
        "message": ending.message,
        "exit_code": ending.exit_code,
    }
    return Decision(((EventType.ATTEMPT_STOPPING, data),), Call.STOP, attempt.number)


def _stopping(job: JobFold, attempt: AttemptFold, seen: Seen, rules: Rules) -> Decision:
    """Wait until the backend confirms that nothing is left; call again meanwhile."""
    found = seen.observation
    since = min(seen.now - (attempt.stopping_at or seen.now), seen.now - attempt.intent_at)
    gone = min(seen.absent_for, since) >= rules.grace if found is None else not found.machine
    # A launch whose reply was lost may still take effect: until the grace is over the stop is repeated.
    if not gone:
        again = seen.stop_called_ago is None or seen.stop_called_ago >= rules.stop_again
        return Decision(call=Call.STOP, attempt=attempt.number) if again else NOTHING
    outcome = Outcome.CANCELLED if job.desired == Desired.CANCEL else _outcome(attempt.outcome)
    ending = _Ending(outcome, attempt.code, attempt.reason, attempt.exit_code)
    return Decision(_over(job, attempt, ending, rules), attempt=attempt.number)


def _outcome(text: str) -> Outcome:
    """What a teardown was begun for; lost where that is unknown, since only then nothing is claimed."""
    return Outcome(text) if text in frozenset(Outcome) else Outcome.LOST


def _over(
    job: JobFold, attempt: AttemptFold, ending: _Ending, rules: Rules
) -> tuple[tuple[EventType, Mapping[str, Any]], ...]:
    """The attempt's last event and what it means for the job."""
    cause: dict[str, Any] = {"code": ending.code, "message": ending.message}
    data = {**cause, "exit_code": ending.exit_code, "outcome": ending.outcome.value, "reason": ending.message}
    last: tuple[EventType, Mapping[str, Any]] = (_ATTEMPT_END[ending.outcome], data)
    return (last, *_verdict(job, ending, cause, rules))


def _verdict(
    job: JobFold, ending: _Ending, cause: dict[str, Any], rules: Rules
) -> tuple[tuple[EventType, Mapping[str, Any]], ...]:
    if job.desired == Desired.CANCEL or ending.outcome == Outcome.CANCELLED:
        return ((EventType.CANCELLED, {}),)
    if ending.outcome == Outcome.SUCCEEDED:
        return ((EventType.SUCCEEDED, {}),)
    if ending.outcome == Outcome.FAILED:
        if ending.code not in NOT_RETRIED and job.failures < rules.retries:
            return ((EventType.QUEUED, {"cause": "failure", **cause}),)
        return ((EventType.FAILED, cause),)
    if rules.resume_lost and job.losses < rules.max_losses:
        return ((EventType.QUEUED, {"cause": "loss", **cause}),)
    return ((EventType.FAILED, {"code": "lost", "message": ending.message or "The machine vanished."}),)


#: Failures that a new attempt of the same job would only repeat.
NOT_RETRIED = frozenset(
    {
        "bad_recipe", "data_invalid", "all_masked", "template_unmaskable", "model_not_found", "deadline", "diverged",
        "compiler_missing", "build_failed", "not_writable", "checkpoint_missing", "checkpoint_mismatch",
        "checkpoints_of_another_job",
    }
)  # fmt: skip

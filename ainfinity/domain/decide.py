"""What to do next with one job: a pure function of what is wished, what is recorded, and what the backend says.

`decide` returns events to record and at most one call to make after they are committed. It never looks at a clock and
is never asked while the backend does not answer: lost contact is not failure. Repeating it on the same input is
harmless, and everything that it wants is wanted again on the next tick if it did not come about.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ainfinity.domain.cost import affordable_until, least_cost
from ainfinity.domain.ending import DEADLINE, NOT_RETRIED, UNFETCHED, Ending, ending_of, recorded_ending
from ainfinity.domain.fold import ON_REQUEST, AttemptFold, JobFold
from ainfinity.domain.observation import Observation, Phase
from ainfinity.domain.rules import NOTHING, Call, Decision, Fact, Rules, Seen
from ainfinity.schema.event import EventType
from ainfinity.schema.states import ATTEMPT_TERMINAL, JOB_TERMINAL, AttemptState, Desired, JobState, Outcome

__all__ = ["NOTHING", "NOT_RETRIED", "Call", "Decision", "Rules", "Seen", "decide"]

_ATTEMPT_END = {
    Outcome.SUCCEEDED: EventType.ATTEMPT_SUCCEEDED,
    Outcome.FAILED: EventType.ATTEMPT_FAILED,
    Outcome.CANCELLED: EventType.ATTEMPT_CANCELLED,
    Outcome.LOST: EventType.ATTEMPT_LOST,
}
_OVER = (Phase.EXITED, Phase.VANISHED)
_AT_WORK = (Phase.SETTING_UP, Phase.RUNNING)
#: Deadlines closer than this are the same; a second is what clocks agree on.
_SAME = 1.0


def decide(job: JobFold, attempt: AttemptFold | None, seen: Seen, rules: Rules) -> Decision:
    """Return the next thing to do for a job; nothing for one that is over. `attempt` is its newest one."""
    if job.state in JOB_TERMINAL:
        return NOTHING
    if job.origin and not job.claimed:
        return _watch(job, attempt, seen, rules)
    if attempt is None or attempt.state in ATTEMPT_TERMINAL:
        return _between_attempts(job, seen, rules)
    if attempt.state == AttemptState.STOPPING:
        return _stopping(job, attempt, seen, rules)
    if job.desired == Desired.CANCEL:
        return _stop(attempt, seen, Ending(Outcome.CANCELLED), "the owner cancelled the job")
    if seen.observation is None:
        return _absent(attempt, seen, rules)
    return _present(job, attempt, seen.observation, seen, rules)


def _watch(job: JobFold, attempt: AttemptFold | None, seen: Seen, rules: Rules) -> Decision:
    """Follow a job that is not ours: nothing is launched, stopped or retried, and it is over when it is over."""
    if attempt is None or attempt.state in ATTEMPT_TERMINAL:
        return NOTHING
    found, events = seen.observation, list[Fact]()
    if found is None:
        if min(seen.now - attempt.intent_at, seen.absent_for) < rules.grace:
            return NOTHING
        ending = Ending(Outcome.LOST, "lost", "It is gone, and how it ended is not known.")
    else:
        events += _progress(attempt, found)
        ending = ending_of(attempt, found, seen, rules) if found.phase in _OVER else None
        if ending is None:
            return Decision(tuple(events), attempt=attempt.number) if events else NOTHING
    last = _last_event(ending, _paid(attempt, seen))
    if ending.outcome == Outcome.SUCCEEDED:
        verdict: Fact = (EventType.SUCCEEDED, {})
    else:
        verdict = (EventType.FAILED, {"code": ending.code, "message": ending.message})
    return Decision((*events, last, verdict), attempt=attempt.number)


def _between_attempts(job: JobFold, seen: Seen, rules: Rules) -> Decision:
    if job.desired == Desired.CANCEL:
        return Decision(((EventType.CANCELLED, {}),))
    if job.state != JobState.QUEUED or job.origin:
        return NOTHING
    if (spent := _too_dear(job, seen, rules)) is not None:
        return Decision(((EventType.FAILED, {"code": spent.code, "message": spent.message}),))
    if seen.admitted:
        return Decision(((EventType.ATTEMPT_INTENDED, {}),), Call.LAUNCH, job.attempt + 1)
    return NOTHING


def _absent(attempt: AttemptFold, seen: Seen, rules: Rules) -> Decision:
    """The backend answers and does not list the attempt."""
    since_intent = seen.now - attempt.intent_at
    if min(since_intent, seen.absent_for) < rules.grace:
        return NOTHING
    if attempt.state == AttemptState.INTENDED:
        return Decision(((EventType.ATTEMPT_INTENDED, {}),), Call.LAUNCH, attempt.number)
    if attempt.keep_reason:
        ending = recorded_ending(attempt)
        return _stop(attempt, seen, ending, ending.message)
    return _stop(attempt, seen, Ending(Outcome.LOST, "lost"), "the backend no longer knows it")


def _present(job: JobFold, attempt: AttemptFold, found: Observation, seen: Seen, rules: Rules) -> Decision:
    events = _progress(attempt, found)
    if found.phase in _OVER:
        return _after(events, _ended(job, attempt, found, seen, rules), attempt)
    ending = _too_late(attempt, found, seen, rules) or _too_dear(job, seen, rules)
    if ending is None and found.phase == Phase.RECOVERING and not rules.resume_lost:
        ending = Ending(Outcome.LOST, "preempted", "The machine was preempted, and policy.recover is never.")
    if ending is None:
        events += _signs(attempt, found, seen, rules)
        ending = _stuck_for_good(events, rules)
    if ending is not None:
        return _after(events, _stop(attempt, seen, ending, ending.message), attempt)
    deadline = _new_deadline(job, attempt, seen, rules)
    if deadline is not None and attempt.state != AttemptState.INTENDED:
        return Decision(tuple(events), Call.EXTEND, attempt.number, deadline)
    return Decision(tuple(events), attempt=attempt.number) if events else NOTHING


def _after(events: list[Fact], decision: Decision, attempt: AttemptFold) -> Decision:
    """Put events before those of a decision."""
    return replace(decision, events=(*events, *decision.events), attempt=attempt.number) if events else decision


def _progress(attempt: AttemptFold, found: Observation) -> list[Fact]:
    """How far the attempt is, and what it was given."""
    events: list[Fact] = []
    if attempt.state == AttemptState.INTENDED:
        events.append((EventType.ATTEMPT_ADOPTED, {"handle": found.handle}))
    began = {"paid_from": found.launched_at} if attempt.paid_from is None and found.launched_at is not None else {}
    match found.phase:
        case Phase.SETTING_UP if attempt.state in (AttemptState.INTENDED, AttemptState.LAUNCHING):
            events.append((EventType.ATTEMPT_SETTING_UP, began))
        case Phase.RUNNING if attempt.state not in (AttemptState.RUNNING, AttemptState.STOPPING):
            events.append((EventType.ATTEMPT_RUNNING, {"handle": found.handle or None, **began}))
        case Phase.RECOVERING if attempt.state not in (AttemptState.RECOVERING, AttemptState.STOPPING):
            events.append((EventType.ATTEMPT_RECOVERING, {"reason": found.reason, **began}))
        case _:
            pass
    return [*events, *_given(attempt, found, began)]


def _given(attempt: AttemptFold, found: Observation, began: dict[str, Any]) -> list[Fact]:
    """What the attempt runs on and costs, when that is told first, and when it was moved to another machine."""
    if found.phase in (Phase.PENDING, Phase.RECOVERING):
        return []  # what is told of a machine that is to come, or is gone, may not be what it gets
    other = bool(found.given and attempt.given) and found.given != attempt.given
    moved = found.recoveries > attempt.recoveries or other
    priced = found.price_per_hour is not None and attempt.price_per_hour is None
    # While it is being stopped nothing else says that a machine came up after all.
    came = attempt.state == AttemptState.STOPPING and attempt.paid_from is None and found.phase in _AT_WORK
    if not (moved or priced or came or (found.given and not attempt.given)):
        return []
    price = found.price_per_hour if found.price_per_hour is not None or moved else attempt.price_per_hour
    told = {"price_per_hour": price, "given": found.given, "recoveries": found.recoveries, "moved": moved, **began}
    return [(EventType.ATTEMPT_GIVEN, told)]


def _signs(attempt: AttemptFold, found: Observation, seen: Seen, rules: Rules) -> list[Fact]:
    """Whether there is any sign of the attempt, told once each time that changes."""
    if rules.stuck_after is None or seen.watched_since is None or found.phase not in _AT_WORK:
        return []
    if attempt.stuck_since is not None:
        alive = seen.last_sign is not None and seen.last_sign > attempt.stuck_since
        return [(EventType.ATTEMPT_UNSTUCK, {})] if alive else []
    since = max(seen.last_sign or 0.0, seen.watched_since, attempt.intent_at)
    if seen.now - since < rules.stuck_after:
        return []
    return [(EventType.ATTEMPT_STUCK, {"since": since, "on_stuck": rules.on_stuck})]


def _stuck_for_good(events: list[Fact], rules: Rules) -> Ending | None:
    if rules.on_stuck == "alert" or all(kind != EventType.ATTEMPT_STUCK for kind, _ in events):
        return None
    text = f"There was no new step, heartbeat or log line for {rules.stuck_after or 0:g} s."
    if rules.on_stuck == "restart":
        return Ending(Outcome.LOST, "stuck", text)
    return Ending(Outcome.FAILED, "stuck", f"{text} See the log's end, then retry: it resumes from its checkpoint.")


def _too_late(attempt: AttemptFold, found: Observation, seen: Seen, rules: Rules) -> Ending | None:
    """Whether it should have ended itself by now."""
    if attempt.deadline is None or seen.now < attempt.deadline + rules.deadline_margin:
        return None
    if found.phase == Phase.PENDING:
        text = (
            "It still waited for a machine at its deadline. Raise policy.max_duration, or take a machine that is free."
        )
        return replace(DEADLINE, message=text)
    return DEADLINE


def _too_dear(job: JobFold, seen: Seen, rules: Rules) -> Ending | None:
    """Whether the job has cost what it may."""
    if rules.max_cost is None or (so_far := least_cost(job, seen.now)) < rules.max_cost:
        return None
    text = f"It has cost ${so_far:.2f} of policy.max_cost ${rules.max_cost:.2f}. Raise that: `ainfinity retry JOB "
    text += "policy.max_cost=…`."
    return Ending(Outcome.FAILED, "max_cost", text)


def _new_deadline(job: JobFold, attempt: AttemptFold, seen: Seen, rules: Rules) -> float | None:
    """Return the deadline that the attempt's machine is to be told, if it is another than the one it knows."""
    wanted = attempt.deadline if attempt.extend_to is None else attempt.extend_to
    if rules.max_cost is not None and job.price_per_hour:
        # The price was not known at the launch, or another machine has another one.
        until = affordable_until(job, rules.max_cost, job.price_per_hour, seen.now)
        wanted = until if wanted is None else min(wanted, until)
    if wanted is None or (attempt.deadline is not None and abs(wanted - attempt.deadline) < _SAME):
        return None
    return wanted


def _ended(job: JobFold, attempt: AttemptFold, found: Observation, seen: Seen, rules: Rules) -> Decision:
    """Tear down what still runs first; an attempt is over only when its machine is gone."""
    known = ending_of(attempt, found, seen, rules)
    if known is None and not attempt.keep_reason:
        return _fetching(job, attempt, found, seen, rules)
    ending = known or recorded_ending(attempt)
    if not found.machine:
        return Decision(_over(job, attempt, seen, ending, rules), attempt=attempt.number)
    until, reason = _kept_until(job, attempt, seen, ending, rules)
    # An end that became known ends the keeping that it was waited for; a keeping on request goes on.
    came = attempt.code == UNFETCHED.code and ending.code != UNFETCHED.code
    if until <= seen.now or _too_dear(job, seen, rules) is not None or (came and reason != ON_REQUEST):
        return _stop(attempt, seen, ending, ending.message)
    if attempt.keep_reason and not came:
        return NOTHING
    return Decision((_keep(attempt, ending, until, reason),), attempt=attempt.number)


def _kept_until(job: JobFold, attempt: AttemptFold, seen: Seen, ending: Ending, rules: Rules) -> tuple[float, str]:
    """Until when the machine stays, and why: because of the policy, or on request."""
    if attempt.keep_until is not None and (attempt.keep_reason or attempt.keep_until > seen.now):
        return attempt.keep_until, attempt.keep_reason or ON_REQUEST
    torn = attempt.keep_until == 0.0
    last = ending.outcome == Outcome.FAILED and not _is_retried(job, ending, rules)
    if torn or not last or not rules.keep_on_failure or ending.code in ("deadline", "max_cost"):
        return 0.0, ""
    return seen.now + rules.keep_on_failure, "policy.keep_on_failure"


def _keep(attempt: AttemptFold, ending: Ending, until: float, reason: str) -> Fact:
    data = {**_cause(ending), "until": until, "price_per_hour": attempt.price_per_hour}
    return EventType.ATTEMPT_KEPT, data | {"reason": reason}


def _fetching(job: JobFold, attempt: AttemptFold, found: Observation, seen: Seen, rules: Rules) -> Decision:
    """What it made is on its way: its machine waits, at first quietly, then with an alert, and not for ever."""
    waits = 0.0 if attempt.fetching_since is None else seen.now - attempt.fetching_since
    if not found.machine:
        lost = waits >= rules.fetch_patience
        return Decision(_over(job, attempt, seen, UNFETCHED, rules), attempt=attempt.number) if lost else NOTHING
    if attempt.fetching_since is None:
        return Decision(((EventType.ATTEMPT_FETCHING, {}),), attempt=attempt.number)
    until = max(attempt.fetching_since + rules.keep_unfetched, attempt.keep_until or 0.0)
    if attempt.keep_until == 0.0 or seen.now >= until or _too_dear(job, seen, rules) is not None:
        return _stop(attempt, seen, UNFETCHED, UNFETCHED.message)
    if waits < rules.fetch_patience:
        return NOTHING
    reason = "what it made could not be brought home and verified yet"
    return Decision((_keep(attempt, UNFETCHED, until, reason),), attempt=attempt.number)


def _stop(attempt: AttemptFold, seen: Seen, ending: Ending, reason: str) -> Decision:
    data = {**_cause(ending), "reason": reason, **_paid(attempt, seen)}
    return Decision(((EventType.ATTEMPT_STOPPING, data),), Call.STOP, attempt.number)


def _paid(attempt: AttemptFold, seen: Seen) -> dict[str, Any]:
    """Since when a machine is paid for that was gone, or at its end, when it was first seen: rather too long."""
    found = seen.observation
    if attempt.paid_from is not None or (attempt.state == AttemptState.INTENDED and found is None):
        return {}
    if found is not None and (found.phase == Phase.PENDING or (found.phase in _AT_WORK and not found.machine)):
        return {}
    return {"paid_from": found.launched_at if found is not None and found.launched_at else attempt.intent_at}


def _stopping(job: JobFold, attempt: AttemptFold, seen: Seen, rules: Rules) -> Decision:
    """Wait until the backend confirms that nothing is left; call again meanwhile."""
    found = seen.observation
    since = min(seen.now - (attempt.stopping_at or seen.now), seen.now - attempt.intent_at)
    gone = min(seen.absent_for, since) >= rules.grace if found is None else not found.machine
    # A launch whose reply was lost may still take effect: until the grace is over the stop is repeated.
    if not gone:
        events = tuple(_progress(attempt, found)) if found is not None else ()
        again = seen.stop_called_ago is None or seen.stop_called_ago >= rules.stop_again
        if not again:
            return Decision(events, attempt=attempt.number) if events else NOTHING
        return Decision(events, Call.STOP, attempt.number)
    ending = recorded_ending(attempt)
    if job.desired == Desired.CANCEL:
        ending = replace(ending, outcome=Outcome.CANCELLED)
    return Decision(_over(job, attempt, seen, ending, rules), attempt=attempt.number)


def _cause(ending: Ending) -> dict[str, Any]:
    return {
        "outcome": ending.outcome.value,
        "code": ending.code,
        "message": ending.message,
        "exit_code": ending.exit_code,
    }


def _last_event(ending: Ending, paid: dict[str, Any]) -> Fact:
    return _ATTEMPT_END[ending.outcome], {**_cause(ending), "reason": ending.message, **paid}


def _over(job: JobFold, attempt: AttemptFold, seen: Seen, ending: Ending, rules: Rules) -> tuple[Fact, ...]:
    """The attempt's last event and what it means for the job."""
    paid = {} if attempt.state == AttemptState.STOPPING else _paid(attempt, seen)
    return (_last_event(ending, paid), *_verdict(job, ending, rules))


def _is_retried(job: JobFold, ending: Ending, rules: Rules) -> bool:
    return ending.code not in NOT_RETRIED and job.failures < rules.retries


def _verdict(job: JobFold, ending: Ending, rules: Rules) -> tuple[Fact, ...]:
    cause: dict[str, Any] = {"code": ending.code, "message": ending.message}
    if job.desired == Desired.CANCEL or ending.outcome == Outcome.CANCELLED:
        return ((EventType.CANCELLED, {}),)
    if ending.outcome == Outcome.SUCCEEDED:
        return ((EventType.SUCCEEDED, {}),)
    if ending.outcome == Outcome.FAILED:
        if _is_retried(job, ending, rules):
            return ((EventType.QUEUED, {"cause": "failure", **cause}),)
        return ((EventType.FAILED, cause),)
    # To restart what is stuck was asked for by name, whatever is done about lost machines.
    if (rules.resume_lost or ending.code == "stuck") and job.losses < rules.max_losses and not job.origin:
        return ((EventType.QUEUED, {"cause": "loss", **cause}),)
    why = "policy.recover is never" if not rules.resume_lost else f"it was lost {job.losses + 1} times"
    text = f"{(ending.message or 'the machine vanished').rstrip('.')}; {why}."
    return ((EventType.FAILED, {"code": "lost", "message": text}),)

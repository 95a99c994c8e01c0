"""From the events of one attempt to its state. `domain.fold` is where all of it is imported from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from ainfinity.domain.cost import free, metered
from ainfinity.schema.event import Event, EventType
from ainfinity.schema.numbers import number, whole
from ainfinity.schema.states import ATTEMPT_TERMINAL, AttemptState, may_move_attempt

#: Why a machine is kept that a person asked to keep.
ON_REQUEST: Final = "on request"


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
    price_per_hour: float | None = None
    #: What was given, in words, and how often the backend moved it to a new machine.
    given: str = ""
    recoveries: int = 0
    #: When its machine first cost; since when it costs the present price, and what it cost before that.
    paid_from: float | None = None
    priced_from: float | None = None
    spent: float | None = 0.0
    #: Until when the machine stays though the attempt ends (0: no longer, by word), and why once it has ended.
    keep_until: float | None = None
    keep_reason: str = ""
    #: Since when there was no sign of it; since when what it made is being brought home.
    stuck_since: float | None = None
    fetching_since: float | None = None
    #: The deadline that was asked for and that its machine does not know yet.
    extend_to: float | None = None
    provenance: dict[str, Any] = field(default_factory=dict[str, Any])


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
            price_per_hour=free(str(data.get("backend", ""))),
            intent_at=event.at,
            calls=1,
            resume_step=whole(data.get("resume_step")),
            deadline=number(data.get("deadline")),
            provenance=cast("dict[str, Any]", provenance) if isinstance(provenance, dict) else {},
        )
    if attempt.state != AttemptState.INTENDED:
        return attempt
    # A call that is made again has its whole time before it: the first one came to nothing.
    deadline = number(data.get("deadline", attempt.deadline))
    return replace(attempt, intent_at=event.at, calls=attempt.calls + 1, deadline=deadline)


def _ending(data: Mapping[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = {
        key: str(data[key]) for key in ("outcome", "code", "reason") if data.get(key) is not None
    }
    if (code := whole(data.get("exit_code"))) is not None:
        changes["exit_code"] = code
    return changes


def _meter(attempt: AttemptFold, event: Event) -> dict[str, Any]:
    changes = metered(attempt, event)
    began = changes.get("priced_from")
    if began is None and event.data.get("paid_from") is not None:
        began = number(event.data["paid_from"])
    return changes if attempt.paid_from is not None or began is None else changes | {"paid_from": began}


def _given(attempt: AttemptFold, event: Event) -> dict[str, Any]:
    given, recoveries = event.data.get("given"), whole(event.data.get("recoveries"))
    changes = _meter(attempt, event)
    if given:
        changes["given"] = str(given)
    return changes if recoveries is None else changes | {"recoveries": max(attempt.recoveries, recoveries)}


def _attempt_kept(attempt: AttemptFold, event: Event) -> dict[str, Any]:
    ending = _ending({**event.data, "reason": event.data.get("message")})
    return ending | {
        "keep_until": number(event.data.get("until")),
        "keep_reason": str(event.data.get("reason") or "kept"),
    }


def _keep_requested(attempt: AttemptFold, event: Event) -> dict[str, Any]:
    until = {"keep_until": number(event.data.get("until"))}
    return until | {"keep_reason": ON_REQUEST} if attempt.keep_reason else until


def _extended(attempt: AttemptFold, event: Event) -> dict[str, Any]:
    deadline = number(event.data.get("deadline"))
    # One that was asked for while this one was told still is to be told.
    asked = attempt.extend_to if attempt.extend_to != deadline and "refused" not in event.data else None
    return {"deadline": deadline, "extend_to": asked}


#: What changes an attempt that is not over, but not its state.
_ASIDE: dict[str, Callable[[AttemptFold, Event], dict[str, Any]]] = {
    EventType.ATTEMPT_GIVEN: _given,
    EventType.ATTEMPT_STUCK: lambda attempt, event: {"stuck_since": event.at},
    EventType.ATTEMPT_UNSTUCK: lambda attempt, event: {"stuck_since": None},
    EventType.ATTEMPT_FETCHING: lambda attempt, event: {"fetching_since": event.at},
    EventType.ATTEMPT_KEPT: _attempt_kept,
    EventType.KEEP_REQUESTED: _keep_requested,
    EventType.TEARDOWN_REQUESTED: lambda attempt, event: {"keep_until": 0.0},
    EventType.EXTEND_REQUESTED: lambda attempt, event: {"extend_to": number(event.data.get("deadline"))},
    EventType.ATTEMPT_EXTENDED: _extended,
}


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
    if (aside := _ASIDE.get(event.type)) is not None:
        return attempt if attempt.state in ATTEMPT_TERMINAL else replace(attempt, **aside(attempt, event))
    state = _ATTEMPT_STATE.get(event.type)
    if state is None or not may_move_attempt(attempt.state, state):
        return attempt
    changes: dict[str, Any] = {"state": state, **_ending(event.data), **_meter(attempt, event)}
    if event.data.get("handle") is not None:
        changes["handle"] = str(event.data["handle"])
    if state == AttemptState.RUNNING and attempt.started_at is None:
        changes["started_at"] = event.at
    if state == AttemptState.STOPPING and attempt.stopping_at is None:
        changes["stopping_at"] = event.at
    if state in ATTEMPT_TERMINAL:
        changes["finished_at"] = event.at
    return replace(attempt, **changes)

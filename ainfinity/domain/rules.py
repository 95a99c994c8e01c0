"""What a decision is made of: the settings and the policy, what a tick knows, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ainfinity.domain.observation import Observation
from ainfinity.schema.event import EventType


class Call(StrEnum):
    """What to ask of the backend once the events are committed."""

    NONE = "none"
    LAUNCH = "launch"
    STOP = "stop"
    #: Tell the attempt's machine the decision's deadline, and record `ATTEMPT_EXTENDED` once it knows.
    EXTEND = "extend"


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings and the policy that a decision depends on. Times are seconds, money is dollars."""

    #: How long an attempt must be missing before that is believed; never less than the backend's lag.
    grace: float = 10.0
    #: How long after a stop call it is made again.
    stop_again: float = 5.0
    retries: int = 0
    resume_lost: bool = True
    #: How often a job is relaunched after its machine vanished without any new checkpoint in between.
    max_losses: int = 5
    #: Whether its output is our trainer's, whose word success takes; of any other task the exit code tells.
    trainer: bool = True
    #: How long the machine of a job's last failure stays; 0 ends it at once.
    keep_on_failure: float = 0.0
    #: How long a machine stays whose export cannot be brought home, and after how long that is an alert.
    keep_unfetched: float = 86400.0
    fetch_patience: float = 600.0
    #: Nothing new for so long is `on_stuck`: alert, restart or stop.
    stuck_after: float | None = None
    on_stuck: str = "alert"
    max_cost: float | None = None
    #: How long past its deadline an attempt may end itself before it is ended from here.
    deadline_margin: float = 120.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What this tick knows of the job's attempt.

    `observation` is None where the backend does not list it, since `absent_for` seconds as far as this worker knows.
    `stop_called_ago` is None before this worker's first stop call. `export_problem` is "" for a verified export, a text
    for a bad one and None where it was not looked at, or cannot be told yet.
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
    #: When there last was a sign of the attempt, by our clock: any new line of its output, another phase or machine.
    #: None where this worker saw none.
    last_sign: float | None = None
    #: Since when its backend and its log answer without a break, so that a sign would have been seen; None while not.
    watched_since: float | None = None


#: An event's type and its data.
Fact = tuple[EventType, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Decision:
    """Events (type, data) about the attempt `attempt` or, where it is 0, about the job; then one call."""

    events: tuple[Fact, ...] = ()
    call: Call = Call.NONE
    attempt: int = 0
    #: With `Call.EXTEND`: when the attempt is to end itself, in Unix seconds.
    deadline: float | None = None


NOTHING = Decision()

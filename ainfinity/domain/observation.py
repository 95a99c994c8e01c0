"""What a compute backend says about an attempt."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """How far an attempt's machine or process is, in the backend's eyes."""

    #: It waits for a machine, or its machine is being provisioned.
    PENDING = "pending"
    SETTING_UP = "setting_up"
    RUNNING = "running"
    RECOVERING = "recovering"
    EXITED = "exited"
    #: It was there and vanished without saying how it ended: power loss, reboot, a supervisor killed with -9.
    VANISHED = "vanished"


@dataclass(frozen=True, slots=True)
class Observation:
    """The backend's latest word about one attempt.

    `machine` tells whether anything of it still runs or costs: a process, a cluster. An attempt is over only when that
    is False. `exit_code` is set with `EXITED` alone.
    """

    name: str
    phase: Phase
    machine: bool
    handle: str = ""
    exit_code: int | None = None
    reason: str = ""
    #: What kind of end it was where the exit code does not tell, as `no_resources`; `reason` is then for people.
    code: str = ""
    #: Dollars an hour for all its nodes, of what was really given; None where that is unknown.
    price_per_hour: float | None = None
    #: What was given, in words, for example `2x H100:8 aws/us-east-1`; "" where that is unknown.
    given: str = ""
    #: How often the backend itself moved it to a new machine.
    recoveries: int = 0
    #: When its machines began to cost, in Unix seconds; None where that is unknown.
    launched_at: float | None = None

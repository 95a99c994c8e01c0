"""The states of jobs and attempts, and the only ways from one to another."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class JobState(StrEnum):
    """Where a job stands, as its owner sees it."""

    PLANNING = "planning"
    AWAITING_APPROVAL = "awaiting_approval"
    QUEUED = "queued"
    LAUNCHING = "launching"
    RUNNING = "running"
    RECOVERING = "recovering"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"


class AttemptState(StrEnum):
    """Where one launch of a job stands."""

    INTENDED = "intended"
    LAUNCHING = "launching"
    SETTING_UP = "setting_up"
    RUNNING = "running"
    RECOVERING = "recovering"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


class Desired(StrEnum):
    """What the owner wants of a job."""

    RUN = "run"
    CANCEL = "cancel"


class Outcome(StrEnum):
    """How an attempt that is being torn down will have ended once its machine is confirmed gone."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


JOB_TERMINAL: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.REJECTED})
JOB_LIVE: Final = frozenset(JobState) - JOB_TERMINAL
#: Live states in which the engine has something to do; the others wait for a person.
JOB_ENGINE: Final = JOB_LIVE - {JobState.PLANNING, JobState.AWAITING_APPROVAL}

ATTEMPT_TERMINAL: Final = frozenset(
    {AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.CANCELLED, AttemptState.LOST}
)
ATTEMPT_LIVE: Final = frozenset(AttemptState) - ATTEMPT_TERMINAL

_J = JobState
#: The table of states: where a job may go from each state. A retry of a finished job queues it again.
JOB_MOVES: Final[dict[JobState, frozenset[JobState]]] = {
    _J.PLANNING: frozenset({_J.AWAITING_APPROVAL, _J.QUEUED, _J.FAILED, _J.CANCELLING, _J.CANCELLED}),
    _J.AWAITING_APPROVAL: frozenset({_J.QUEUED, _J.REJECTED, _J.CANCELLING, _J.CANCELLED}),
    _J.QUEUED: frozenset({_J.LAUNCHING, _J.FAILED, _J.CANCELLING, _J.CANCELLED}),
    _J.LAUNCHING: frozenset({_J.RUNNING, _J.RECOVERING, _J.QUEUED, _J.SUCCEEDED, _J.FAILED, _J.CANCELLING}),
    _J.RUNNING: frozenset({_J.RECOVERING, _J.QUEUED, _J.SUCCEEDED, _J.FAILED, _J.CANCELLING}),
    _J.RECOVERING: frozenset({_J.RUNNING, _J.QUEUED, _J.SUCCEEDED, _J.FAILED, _J.CANCELLING}),
    _J.CANCELLING: frozenset({_J.CANCELLED}),
    _J.SUCCEEDED: frozenset(),
    _J.FAILED: frozenset({_J.QUEUED}),
    _J.CANCELLED: frozenset({_J.QUEUED}),
    _J.REJECTED: frozenset(),
}

#: Attempts never move backwards. Running and recovering are one stage, since a recovery ends in running.
ATTEMPT_STAGE: Final[dict[AttemptState, int]] = {
    AttemptState.INTENDED: 0,
    AttemptState.LAUNCHING: 1,
    AttemptState.SETTING_UP: 2,
    AttemptState.RUNNING: 3,
    AttemptState.RECOVERING: 3,
    AttemptState.STOPPING: 4,
    **dict.fromkeys(ATTEMPT_TERMINAL, 5),
}


def may_move_attempt(old: AttemptState, new: AttemptState) -> bool:
    """Whether an attempt may go from `old` to `new`."""
    if old in ATTEMPT_TERMINAL:
        return False
    return ATTEMPT_STAGE[new] >= ATTEMPT_STAGE[old]

"""Events: immutable facts about a job, in the past tense, ordered by `seq`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class EventType(StrEnum):
    """What can have happened. Readers pass over types they do not know."""

    SUBMITTED = "job.submitted"
    PLANNED = "job.planned"
    APPROVAL_REQUESTED = "job.approval_requested"
    APPROVED = "job.approved"
    REJECTED = "job.rejected"
    QUEUED = "job.queued"
    CANCEL_REQUESTED = "job.cancel_requested"
    RETRIED = "job.retried"
    SUCCEEDED = "job.succeeded"
    FAILED = "job.failed"
    CANCELLED = "job.cancelled"
    #: The last one of a job: its record was removed.
    DELETED = "job.deleted"

    ATTEMPT_INTENDED = "attempt.intended"
    ATTEMPT_LAUNCHED = "attempt.launched"
    ATTEMPT_ADOPTED = "attempt.adopted"
    ATTEMPT_SETTING_UP = "attempt.setting_up"
    ATTEMPT_RUNNING = "attempt.running"
    ATTEMPT_RECOVERING = "attempt.recovering"
    ATTEMPT_STOPPING = "attempt.stopping"
    ATTEMPT_SUCCEEDED = "attempt.succeeded"
    ATTEMPT_FAILED = "attempt.failed"
    ATTEMPT_CANCELLED = "attempt.cancelled"
    ATTEMPT_LOST = "attempt.lost"

    #: What was really given: `price_per_hour` (None: unknown), `given` in words, `recoveries`; `moved` to another one.
    ATTEMPT_GIVEN = "attempt.given"
    #: Nothing new for `stuck_after` while contact was good; and a sign of life after that.
    ATTEMPT_STUCK = "attempt.stuck"
    ATTEMPT_UNSTUCK = "attempt.unstuck"
    #: The trainer ended, and what it made is not in a durable place yet; its machine waits for that.
    ATTEMPT_FETCHING = "attempt.fetching"
    #: The machine stays until `until` though the attempt ended, with `outcome`, `code` and `message`: `reason`.
    ATTEMPT_KEPT = "attempt.kept"
    #: The deadline is `deadline` now: asked for by a person, and told to the machine.
    EXTEND_REQUESTED = "job.extend_requested"
    ATTEMPT_EXTENDED = "attempt.extended"
    KEEP_REQUESTED = "job.keep_requested"
    TEARDOWN_REQUESTED = "job.teardown_requested"
    #: A job that was started with plain SkyPilot is ours to show, and after the claim to end.
    ADOPTED = "job.adopted"
    CLAIMED = "job.claimed"
    #: A machine with our name that no live job owns. `job_id` is that of the job in its name.
    ORPHAN_FOUND = "orphan.found"
    ORPHAN_REMOVED = "orphan.removed"

    CONTACT_LOST = "contact.lost"
    CONTACT_RESTORED = "contact.restored"

    TRAINER_STARTED = "trainer.started"
    TRAINER_EVAL = "trainer.eval"
    TRAINER_SAMPLE = "trainer.sample"
    TRAINER_CHECKPOINT = "trainer.checkpoint"
    TRAINER_WARNING = "trainer.warning"
    TRAINER_STOPPED = "trainer.stopped"
    TRAINER_FINISHED = "trainer.finished"
    TRAINER_FAILED = "trainer.failed"


#: The events after which a job is over; each owes its notices exactly once.
TERMINAL_EVENTS = frozenset({EventType.SUCCEEDED, EventType.FAILED, EventType.CANCELLED, EventType.REJECTED})


@dataclass(frozen=True, slots=True)
class Event:
    """One fact. `seq` is 0 until it is stored; `attempt` is 0 where it concerns the job as a whole."""

    type: str
    job_id: str
    at: float
    actor: str
    attempt: int = 0
    data: dict[str, Any] = field(default_factory=dict[str, Any])
    seq: int = 0

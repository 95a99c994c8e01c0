"""How an attempt ended that is no longer at work, in a code for programs and words with the next step for people."""

from __future__ import annotations

from dataclasses import dataclass

from ainfinity.core.constants import EXIT_SECOND_COPY
from ainfinity.domain.fold import AttemptFold
from ainfinity.domain.observation import Observation, Phase
from ainfinity.domain.rules import Rules, Seen
from ainfinity.schema.states import Outcome


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended, or is to have ended once its machine is gone."""

    outcome: Outcome
    code: str = ""
    message: str = ""
    exit_code: int | None = None


#: Failures that a new attempt of the same job would only repeat.
NOT_RETRIED = frozenset(
    {
        "bad_recipe", "data_invalid", "all_masked", "template_unmaskable", "model_not_found", "deadline", "diverged",
        "compiler_missing", "build_failed", "not_writable", "checkpoint_missing", "checkpoint_mismatch",
        "checkpoints_of_another_job", "max_cost", "stuck", "export_unfetched", "setup_failed", "no_resources", "quota",
        "bad_credentials", "bad_task", "prechecks_failed",
    }
)  # fmt: skip

DEADLINE = Ending(
    Outcome.FAILED,
    "deadline",
    "The attempt reached its time limit. Raise policy.max_duration and retry: it resumes from its checkpoint.",
)
UNFETCHED = Ending(
    Outcome.FAILED,
    "export_unfetched",
    "What it made could not be brought home or verified, and its machine is gone. Set resources.storage, so that it "
    "does not lie on the machine alone, and retry.",
)


def ending_of(attempt: AttemptFold, found: Observation, seen: Seen, rules: Rules) -> Ending | None:
    """Return how an attempt ended that has exited or vanished; None while that cannot be told yet."""
    if not seen.lines_drained:
        return None
    code = found.exit_code
    if attempt.trainer_end == "finished" and code in (0, None):
        if seen.export_problem is None:
            return None
        if seen.export_problem:
            return Ending(Outcome.FAILED, "export_invalid", seen.export_problem, code)
        return Ending(Outcome.SUCCEEDED, exit_code=code)
    if code == EXIT_SECOND_COPY or attempt.trainer_code == "second_copy":
        return Ending(Outcome.LOST, "second_copy", attempt.trainer_message or "another copy held its checkpoints", code)
    if found.phase == Phase.VANISHED:
        return Ending(Outcome.LOST, "lost", found.reason or "the machine or its supervisor vanished", code)
    if attempt.trainer_end == "failed":
        return Ending(Outcome.FAILED, attempt.trainer_code or "failed", attempt.trainer_message, code)
    if found.reason == "deadline" or (attempt.trainer_end == "stopped" and attempt.trainer_code == "deadline"):
        return Ending(Outcome.FAILED, DEADLINE.code, DEADLINE.message, code)
    if found.code:
        return Ending(Outcome.FAILED, found.code, found.reason, code)
    if attempt.trainer_end == "stopped" or found.reason == "terminated":
        return Ending(Outcome.LOST, "preempted", found.reason or "it was told to stop by someone else", code)
    if code == 0 and not rules.trainer:
        return Ending(Outcome.SUCCEEDED, exit_code=code)
    if code == 0:
        return Ending(Outcome.FAILED, "no_result", "The process ended without saying that it finished.", code)
    if code is None:
        return Ending(Outcome.FAILED, "failed", found.reason or "It ended without an exit code; see the log.")
    return Ending(Outcome.FAILED, "exit_code", f"The process exited with code {code}; see the log.", code)


def recorded_ending(attempt: AttemptFold) -> Ending:
    """Return what a teardown was begun, or a machine kept, for; lost where that is unknown: then nothing is claimed."""
    known = attempt.outcome in frozenset(Outcome)
    outcome = Outcome(attempt.outcome) if known else Outcome.LOST
    return Ending(outcome, attempt.code, attempt.reason, attempt.exit_code)

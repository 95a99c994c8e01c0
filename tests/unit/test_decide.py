"""`decide()` over every state and every observation: first exhaustively at two ages, then at any age by hypothesis."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ainfinity.core.constants import EXIT_SECOND_COPY
from ainfinity.domain.decide import NOT_RETRIED, Call, Decision, Rules, Seen, decide
from ainfinity.domain.fold import AttemptFold, JobFold, fold_attempt, fold_job
from ainfinity.domain.observation import Observation, Phase
from ainfinity.schema.event import TERMINAL_EVENTS, Event, EventType
from ainfinity.schema.states import (
    ATTEMPT_LIVE,
    ATTEMPT_TERMINAL,
    JOB_MOVES,
    JOB_TERMINAL,
    AttemptState,
    Desired,
    JobState,
    Outcome,
    may_move_attempt,
)

NOW = 1000.0
RULES = Rules(grace=10.0, stop_again=5.0, retries=1, max_losses=2)
OVER = (Phase.EXITED, Phase.VANISHED)
WITH_ATTEMPT = (JobState.LAUNCHING, JobState.RUNNING, JobState.RECOVERING, JobState.CANCELLING)
TRIES = settings(derandomize=True, database=None, deadline=None, max_examples=600)


@dataclass(frozen=True)
class Case:
    job: JobFold
    attempt: AttemptFold | None
    seen: Seen
    rules: Rules = RULES

    def decide(self) -> Decision:
        return decide(self.job, self.attempt, self.seen, self.rules)

    def after(self, decision: Decision) -> Case:
        """The same moment with the decision's events taken in, each of which must be a legal move."""
        job, attempt, seen = self.job, self.attempt, self.seen
        for kind, data in decision.events:
            event = Event(kind, job.id, self.seen.now, "engine", decision.attempt, {"name": "ain-x-j-a1"} | dict(data))
            old_job, old_attempt = job, attempt
            job = fold_job(job, event)
            if decision.attempt:
                mine = attempt if attempt and attempt.number == decision.attempt else None
                attempt = fold_attempt(mine, event)
            check_move(kind, old_job, job, old_attempt, attempt)
        if attempt is not self.attempt and attempt and (not self.attempt or attempt.number != self.attempt.number):
            seen = replace(seen, observation=None, absent_for=0.0)
        return replace(self, job=job, attempt=attempt, seen=seen)


def check_move(
    kind: str, old_job: JobFold, job: JobFold, old_attempt: AttemptFold | None, attempt: AttemptFold | None
) -> None:
    assert job.state == old_job.state or job.state in JOB_MOVES[old_job.state]
    if kind.startswith("job."):
        assert job.state == kind.removeprefix("job."), f"{kind} did not move a job in {old_job.state}"
    elif old_attempt and attempt and attempt.number == old_attempt.number:
        assert may_move_attempt(old_attempt.state, attempt.state) or attempt.state == old_attempt.state
        assert attempt != old_attempt, f"{kind} did not change an attempt in {old_attempt.state}"


def observations() -> Iterator[Observation | None]:
    yield None
    for phase, machine in itertools.product(Phase, (True, False)):
        if phase not in OVER:
            if machine:
                yield Observation("ain-x-j-a1", phase, machine, handle="h")
            continue
        codes = (None, 0, 1, EXIT_SECOND_COPY) if phase == Phase.EXITED else (None,)
        for code, reason in itertools.product(codes, ("", "deadline", "terminated")):
            yield Observation("ain-x-j-a1", phase, machine, handle="h", exit_code=code, reason=reason)


def attempt_in(state: AttemptState, **changes: object) -> AttemptFold:
    outcome = str(Outcome.FAILED) if state == AttemptState.STOPPING else ""
    attempt = AttemptFold("j", 1, "ain-x-j-a1", state, intent_at=0.0, stopping_at=1.0 if outcome else None)
    return replace(attempt, outcome=outcome, code="oom" if outcome else "", **changes)


def possible(job: JobFold, attempt: AttemptFold | None) -> bool:
    """Whether these can be stored together: a live attempt belongs to a job that has been launched, and so on."""
    if (job.desired == Desired.CANCEL) != (job.state in (JobState.CANCELLING, JobState.CANCELLED)):
        return False
    if attempt is not None and attempt.state == AttemptState.INTENDED and attempt.trainer_end:
        return False
    if attempt is not None and attempt.state in ATTEMPT_LIVE:
        return job.state in WITH_ATTEMPT and (job.desired == Desired.CANCEL or attempt.outcome != Outcome.CANCELLED)
    return job.state not in WITH_ATTEMPT or job.state == JobState.CANCELLING


def every_case() -> Iterator[Case]:
    found = tuple(observations())
    ages, ends = (9.9, 10.0), ("", "finished", "failed", "stopped")
    attempts = (None, *(attempt_in(state) for state in AttemptState))
    for state, desired, attempt in itertools.product(JobState, Desired, attempts):
        job = JobFold("j", state, desired, attempt=0 if attempt is None else 1)
        for seen, age in itertools.product(found, ages):
            if attempt is None:
                yield Case(job, None, Seen(NOW, seen, age, 1.0, admitted=True))
                continue
            # What the trainer said and what was read of it matters only for the end of an attempt.
            over = seen is not None and seen.phase in OVER
            for end, drained, export in itertools.product(
                ends if over else ends[:1], (True, False) if over else (True,), (None, "", "bad") if over else (None,)
            ):
                fresh = replace(attempt, intent_at=NOW - age, stopping_at=attempt.stopping_at and NOW - age)
                yield Case(job, replace(fresh, trainer_end=end), Seen(NOW, seen, age, 1.0, export, drained, True))


ALL = tuple(every_case())
POSSIBLE = tuple(
    case for case in ALL if possible(case.job, case.attempt) and (case.attempt or case.seen.observation is None)
)


def test_the_cases_cover_every_state_and_observation() -> None:
    assert {case.job.state for case in ALL} == set(JobState)
    assert {case.attempt.state for case in ALL if case.attempt} == set(AttemptState)
    assert {case.seen.observation.phase for case in ALL if case.seen.observation} == set(Phase)
    assert len(ALL) > 10_000
    assert len(POSSIBLE) > 2_000


def test_it_always_answers() -> None:
    for case in ALL:
        assert isinstance(case.decide(), Decision)


def test_every_event_is_a_legal_move_and_repeating_asks_for_no_second_call() -> None:
    for case in POSSIBLE:
        decision = case.decide()
        after = case.after(decision)
        # The same tick again, as after a crash between the commit and the call; the stop was just called.
        seen = replace(after.seen, stop_called_ago=0.0)
        again = replace(after, seen=seen).decide()
        if decision.call == Call.LAUNCH:
            assert again == Decision(), case
        else:
            # It may be a new attempt's turn once the old one is over; never the same one's.
            assert again.call != Call.LAUNCH or after.attempt is None or again.attempt > after.attempt.number, case
        if decision.call == Call.STOP:
            assert again.call == Call.NONE, case


def test_it_comes_to_rest() -> None:
    """Deciding again and again on one observation ends, and tells the end of the job at most once."""
    for case in POSSIBLE:
        ends = 0
        for _ in range(6):
            decision = case.decide()
            ends += sum(kind in TERMINAL_EVENTS for kind, _ in decision.events)
            case = case.after(decision)
            case = replace(case, seen=replace(case.seen, stop_called_ago=0.0, admitted=False))
            if not decision.events:
                break
        else:
            pytest.fail(f"still deciding: {case}")
        assert ends <= 1
        assert (case.job.state in JOB_TERMINAL) or not ends


def may_be_alive(case: Case) -> bool:
    """Whether anything of the attempt may still run, for all that this tick knows."""
    if case.attempt is None or case.attempt.state in ATTEMPT_TERMINAL:
        return False
    if case.seen.observation is not None:
        return case.seen.observation.machine
    since = min(case.seen.now - (case.attempt.stopping_at or case.attempt.intent_at), case.seen.absent_for)
    return since < case.rules.grace


def check_safety(case: Case) -> None:
    decision = case.decide()
    kinds = {kind for kind, _ in decision.events}
    if decision.call == Call.LAUNCH:
        assert case.job.desired == Desired.RUN
        assert case.job.state == JobState.QUEUED or case.attempt is not None
        assert kinds == {EventType.ATTEMPT_INTENDED}, "a launch is intended before it is called"
        assert not may_be_alive(case)
        assert case.attempt is None or case.seen.observation is None or case.attempt.state in ATTEMPT_TERMINAL
        if decision.attempt == (case.attempt.number if case.attempt else 0):
            assert case.attempt is not None
            assert case.attempt.state == AttemptState.INTENDED, "only a call that was never answered is made again"
    ended = kinds & {
        kind for kind in EventType if kind.startswith("attempt.") and kind.split(".")[1] in ATTEMPT_TERMINAL
    }
    if ended or kinds & TERMINAL_EVENTS:
        assert not may_be_alive(case)
        assert len(kinds & TERMINAL_EVENTS) <= 1
    if kinds & TERMINAL_EVENTS or EventType.QUEUED in kinds:
        assert ended or case.attempt is None or case.attempt.state in ATTEMPT_TERMINAL
    if case.job.state in JOB_TERMINAL:
        assert decision == Decision()


def test_nothing_is_launched_or_ended_while_anything_may_still_run() -> None:
    for case in POSSIBLE:
        check_safety(case)


def test_a_cancelled_job_is_stopped_whatever_is_seen_and_ends_cancelled() -> None:
    for case in POSSIBLE:
        if case.job.desired != Desired.CANCEL or case.job.state in JOB_TERMINAL:
            continue
        decision = case.decide()
        kinds = {kind for kind, _ in decision.events}
        assert decision.call != Call.LAUNCH
        assert not kinds & (TERMINAL_EVENTS - {EventType.CANCELLED})
        if case.attempt and case.attempt.state in ATTEMPT_LIVE and case.attempt.state != AttemptState.STOPPING:
            assert decision.call == Call.STOP


def test_a_found_intent_is_adopted_at_once_even_if_its_end_cannot_be_told_yet() -> None:
    checked = 0
    for case in POSSIBLE:
        found, attempt = case.seen.observation, case.attempt
        if attempt and attempt.state == AttemptState.INTENDED and found and case.job.desired == Desired.RUN:
            after = case.after(case.decide())
            assert after.attempt is not None
            assert after.attempt.state != AttemptState.INTENDED
            checked += 1
    assert checked > 100


def test_the_cause_of_a_teardown_outlives_it() -> None:
    """A failed trainer whose machine lingers: stopping keeps code, text and exit code, and the job fails with them."""
    job = JobFold("j", JobState.RUNNING, attempt=1, failures=1)
    attempt = attempt_in(AttemptState.RUNNING, trainer_end="failed", trainer_code="oom", trainer_message="no memory")
    lingers = Observation("ain-x-j-a1", Phase.EXITED, machine=True, exit_code=1)
    case = Case(job, attempt, Seen(NOW, lingers))
    case = case.after(case.decide())
    assert case.attempt is not None
    assert case.attempt.state == AttemptState.STOPPING
    gone = replace(case.seen, now=NOW + 20, observation=None, absent_for=15.0)
    case = replace(case, seen=gone)
    case = case.after(case.decide())
    assert case.attempt is not None
    assert (case.attempt.state, case.attempt.code, case.attempt.exit_code) == (AttemptState.FAILED, "oom", 1)
    assert (case.job.state, case.job.error_code, case.job.error_message) == (JobState.FAILED, "oom", "no memory")


@pytest.mark.parametrize(
    ("code", "failures", "state"),
    [("oom", 0, JobState.QUEUED), ("oom", 1, JobState.FAILED), *((code, 0, JobState.FAILED) for code in NOT_RETRIED)],
)
def test_a_failure_is_retried_by_policy(code: str, failures: int, state: JobState) -> None:
    job = JobFold("j", JobState.RUNNING, attempt=1, failures=failures)
    attempt = attempt_in(AttemptState.RUNNING, trainer_end="failed", trainer_code=code)
    case = Case(job, attempt, Seen(NOW, Observation("ain-x-j-a1", Phase.EXITED, machine=False, exit_code=1)))
    assert case.after(case.decide()).job.state == state


@pytest.mark.parametrize(
    ("losses", "resume", "state"),
    [(0, True, JobState.QUEUED), (1, True, JobState.QUEUED), (2, True, JobState.FAILED), (0, False, JobState.FAILED)],
)
@pytest.mark.parametrize("exit_code", [None, EXIT_SECOND_COPY])
def test_a_loss_is_resumed_by_policy_and_a_second_copy_is_no_verdict(
    losses: int, resume: bool, state: JobState, exit_code: int | None
) -> None:
    job = JobFold("j", JobState.RUNNING, attempt=1, losses=losses)
    phase = Phase.VANISHED if exit_code is None else Phase.EXITED
    found = Observation("ain-x-j-a1", phase, machine=False, exit_code=exit_code)
    rules = replace(RULES, resume_lost=resume, retries=0)
    case = Case(job, attempt_in(AttemptState.RUNNING), Seen(NOW, found), rules)
    assert case.after(case.decide()).job.state == state


def test_an_unknown_outcome_claims_nothing() -> None:
    attempt = replace(attempt_in(AttemptState.STOPPING), outcome="of a newer version")
    gone = Observation("ain-x-j-a1", Phase.EXITED, machine=False, exit_code=0)
    case = Case(JobFold("j", JobState.RUNNING, attempt=1), attempt, Seen(NOW, gone))
    kinds = [kind for kind, _ in case.decide().events]
    assert kinds == [EventType.ATTEMPT_LOST, EventType.QUEUED]


seconds = st.floats(0, 30, allow_nan=False)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    case = POSSIBLE[draw(st.integers(0, len(POSSIBLE) - 1))]
    attempt = case.attempt
    if attempt is not None:
        intent = NOW - draw(seconds)
        stopping = None if attempt.stopping_at is None else draw(st.floats(intent, NOW))
        outcome = draw(st.sampled_from(["", *Outcome])) if attempt.state == AttemptState.STOPPING else ""
        codes = ["", "oom", "deadline", "second_copy"]
        changed = {"intent_at": intent, "stopping_at": stopping, "outcome": str(outcome)}
        attempt = replace(attempt, **changed, trainer_code=draw(st.sampled_from(codes)))
    seen = replace(
        case.seen,
        absent_for=draw(seconds),
        stop_called_ago=draw(st.none() | seconds),
        admitted=draw(st.booleans()),
    )
    rules = Rules(
        grace=draw(st.floats(1, 20)),
        stop_again=draw(st.floats(0.1, 10)),
        retries=draw(st.integers(0, 2)),
        resume_lost=draw(st.booleans()),
        max_losses=draw(st.integers(0, 2)),
    )
    job = replace(case.job, failures=draw(st.integers(0, 3)), losses=draw(st.integers(0, 3)))
    return Case(job, attempt, seen, rules)


@TRIES
@given(cases())
def test_at_any_age_it_is_legal_and_safe(case: Case) -> None:
    assume(possible(case.job, case.attempt))
    case.after(case.decide())
    check_safety(case)


def test_without_a_grace_an_attempt_that_may_yet_come_is_launched_again() -> None:
    """The negative control of the safety check: it must see what the grace is for."""
    unsafe = 0
    for case in POSSIBLE:
        decision = decide(case.job, case.attempt, case.seen, replace(RULES, grace=0.0))
        unsafe += decision.call == Call.LAUNCH and may_be_alive(case)
    assert unsafe > 0

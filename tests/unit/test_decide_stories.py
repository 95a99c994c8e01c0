"""`decide()` over limits of time and money, machines that stay, stuck and adopted jobs: what happens when."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from ainfinity.domain.cost import cost_of
from ainfinity.domain.decide import NOT_RETRIED, Call, Decision, Rules, Seen
from ainfinity.domain.fold import ON_REQUEST, JobFold
from ainfinity.domain.observation import Observation, Phase
from ainfinity.schema.event import EventType
from ainfinity.schema.states import JOB_TERMINAL, AttemptState, JobState, Outcome
from tests.unit.test_decide import Case, attempt_in
from tests.unit.test_decide_policy import (
    NOW,
    STATES,
    UNFETCHED,
    VARIANTS,
    attempt_with,
    job_with,
    observations,
)

E = EventType


def run(
    attempt: dict[str, object], seen: Seen, rules: Rules, job: dict[str, object] | None = None
) -> tuple[Case, Decision]:
    made = attempt_with(AttemptState.RUNNING, **attempt)
    case = Case(job_with(made, **(job or {})), made, seen, rules)
    return case, case.decide()


def kinds(decision: Decision) -> list[EventType]:
    return [kind for kind, _ in decision.events]


RUNNING = Observation("ain-x-j-a1", Phase.RUNNING, machine=True)
FAILED = Observation("ain-x-j-a1", Phase.EXITED, machine=True, exit_code=1)
DONE = Observation("ain-x-j-a1", Phase.EXITED, machine=True, exit_code=0)


def test_never_recover_means_never_even_where_the_backend_would() -> None:
    moving = Observation("ain-x-j-a1", Phase.RECOVERING, machine=True)
    case, decision = run({}, Seen(NOW, moving), Rules(resume_lost=False))
    assert decision.call == Call.STOP
    after = case.after(decision)
    gone = replace(after.seen, observation=replace(moving, phase=Phase.EXITED, machine=False))
    end = replace(after, seen=gone)
    end = end.after(end.decide())
    assert (end.job.state, end.job.error_code) == (JobState.FAILED, "lost")
    assert "policy.recover is never" in end.job.error_message
    assert run({}, Seen(NOW, moving), Rules())[1].call == Call.NONE


def test_a_machine_is_kept_after_the_last_failure_only_and_then_goes() -> None:
    rules = Rules(keep_on_failure=7200.0, retries=1)
    failed = {"trainer_end": "failed", "trainer_code": "oom"}
    assert run(failed, Seen(NOW, FAILED), rules)[1].call == Call.STOP, "a retry comes at once"
    case, decision = run(failed, Seen(NOW, FAILED), rules, {"failures": 1})
    assert (kinds(decision), decision.call) == ([E.ATTEMPT_KEPT], Call.NONE)
    _, data = decision.events[0]
    assert (data["until"], data["price_per_hour"], data["code"]) == (NOW + 7200.0, 3600.0, "oom")
    after = case.after(decision)
    assert after.decide() == Decision()
    assert after.job.kept_until == NOW + 7200.0
    late = replace(after, seen=replace(after.seen, now=NOW + 7200.0))
    assert late.decide().call == Call.STOP
    gone = replace(after, seen=Seen(NOW + 60.0, None, absent_for=60.0))
    assert gone.decide().events[0][1]["code"] == "oom", "that it went by itself does not change how it ended"


def test_an_export_that_cannot_be_fetched_is_waited_for_then_told_then_given_up() -> None:
    done = {"trainer_end": "finished"}
    case, decision = run(done, Seen(NOW, DONE), Rules())
    told: list[tuple[float, list[EventType], Call]] = []
    for now in (NOW, NOW + 1, NOW + 599, NOW + 600, NOW + 601, NOW + 86399, NOW + 86400):
        case = replace(case, seen=replace(case.seen, now=now))
        decision = case.decide()
        if decision != Decision():
            told.append((now - NOW, kinds(decision), decision.call))
        case = case.after(decision)
    assert told == [
        (0.0, [E.ATTEMPT_FETCHING], Call.NONE),
        (600.0, [E.ATTEMPT_KEPT], Call.NONE),
        (86400.0, [E.ATTEMPT_STOPPING], Call.STOP),
    ]
    assert case.attempt is not None
    assert case.attempt.code == "export_unfetched"
    gone = replace(case, seen=Seen(NOW + 86500.0, replace(DONE, machine=False)))
    gone = gone.after(gone.decide())
    assert (gone.job.state, gone.job.error_code) == (JobState.FAILED, "export_unfetched")


@pytest.mark.parametrize(("reason", "kept"), [("not yet", False), (ON_REQUEST, True)])
def test_an_export_that_comes_home_late_is_a_success(reason: str, kept: bool) -> None:
    waiting = {**UNFETCHED, "keep_reason": reason, "keep_until": NOW + 100.0, "trainer_end": "finished"}
    case, decision = run(waiting, Seen(NOW, DONE, export_problem=""), Rules())
    assert (decision.call == Call.STOP) != kept
    assert decision.events[0][1]["outcome"] == Outcome.SUCCEEDED
    assert case.after(decision).decide().call == Call.NONE or not kept


def test_what_is_gone_before_its_export_came_home_is_not_waited_for_for_ever() -> None:
    gone = replace(DONE, machine=False)
    begun = {"trainer_end": "finished", "fetching_since": NOW - 599.0}
    assert run(begun, Seen(NOW, gone), Rules())[1] == Decision()
    case, decision = run(begun | {"fetching_since": NOW - 600.0}, Seen(NOW, gone), Rules())
    assert case.after(decision).job.error_code == "export_unfetched"


def test_stuck_is_told_once_and_taken_back_by_a_sign() -> None:
    rules = Rules(stuck_after=60.0)
    case, decision = run({}, Seen(NOW, RUNNING, last_sign=NOW - 60.0, watched_since=NOW - 900.0), rules)
    assert (kinds(decision), decision.call) == ([E.ATTEMPT_STUCK], Call.NONE)
    after = case.after(decision)
    assert after.job.stuck_since == NOW
    assert after.decide() == Decision()
    alive = replace(after, seen=replace(after.seen, now=NOW + 5, last_sign=NOW + 5))
    assert kinds(alive.decide()) == [E.ATTEMPT_UNSTUCK]
    # A worker that has just begun to watch, or one that cannot see, says nothing either way.
    for seen in (Seen(NOW, RUNNING, watched_since=NOW - 59.0), Seen(NOW, RUNNING, last_sign=NOW - 900.0)):
        assert run({}, seen, rules)[1] == Decision()
        assert run({"stuck_since": NOW - 100.0}, replace(seen, last_sign=None), rules)[1] == Decision()


@pytest.mark.parametrize(
    ("on_stuck", "outcome", "state"), [("restart", "lost", "queued"), ("stop", "failed", "failed")]
)
def test_stuck_for_good(on_stuck: str, outcome: str, state: str) -> None:
    rules = Rules(stuck_after=60.0, on_stuck=on_stuck, retries=5, resume_lost=False)
    case, decision = run({}, Seen(NOW, RUNNING, watched_since=NOW - 60.0), rules)
    assert (kinds(decision), decision.call) == ([E.ATTEMPT_STUCK, E.ATTEMPT_STOPPING], Call.STOP)
    assert decision.events[-1][1]["outcome"] == outcome
    after = case.after(decision)
    gone = replace(after, seen=Seen(NOW, replace(FAILED, machine=False)))
    assert gone.after(gone.decide()).job.state == state


def test_a_price_that_is_told_late_brings_the_deadline_forward() -> None:
    rules = Rules(max_cost=100.0)
    _, decision = run({"deadline": NOW + 86400.0}, Seen(NOW, RUNNING), rules)
    assert decision.call == Call.EXTEND
    assert decision.deadline == pytest.approx(NOW + 50.0), "$50 are left at $1 a second"
    assert run({"deadline": NOW + 50.5}, Seen(NOW, RUNNING), rules)[1] == Decision()
    assert run({"deadline": NOW + 10.0}, Seen(NOW, RUNNING), rules)[1] == Decision(), "it is never put off by itself"
    free = {"price_per_hour": 0.0}
    assert run({**free, "deadline": None}, Seen(NOW, RUNNING), rules, free)[1] == Decision(), "what is free has no end"


def test_a_budget_that_is_spent_starts_nothing_new() -> None:
    job = JobFold("j", JobState.QUEUED, attempt=1, spent=40.0)
    over = Case(job, attempt_in(AttemptState.FAILED), Seen(NOW, admitted=True), Rules(max_cost=40.0))
    after = over.after(over.decide())
    assert (after.job.state, after.job.error_code) == (JobState.FAILED, "max_cost")
    unknown = replace(over, job=replace(job, spent=None))
    assert unknown.decide().call == Call.LAUNCH
    # One machine without a price does not set all after it free: what is known is held against the budget.
    _, decision = run({}, Seen(NOW, RUNNING), Rules(max_cost=40.0), {"spent": None})
    assert decision.events[-1][1]["code"] == "max_cost"


def test_what_was_given_is_recorded_once_and_again_after_a_move() -> None:
    bare = {"price_per_hour": None, "given": "", "priced_from": NOW - 50.0, "paid_from": NOW - 50.0}
    told = replace(RUNNING, price_per_hour=2.0, given="1x A100 gcp")
    case, decision = run(bare, Seen(NOW, told), Rules(), {"price_per_hour": None})
    assert kinds(decision) == [E.ATTEMPT_GIVEN]
    case = case.after(decision)
    assert case.attempt is not None
    assert (case.attempt.price_per_hour, case.attempt.given, case.job.price_per_hour) == (2.0, "1x A100 gcp", 2.0)
    assert case.decide() == Decision()
    # Prices count as of the launch; another machine has another one.
    assert replace(case, seen=Seen(NOW, replace(told, price_per_hour=9.0))).decide() == Decision()
    assert replace(case, seen=Seen(NOW, replace(told, price_per_hour=None, given=""))).decide() == Decision()
    moved = replace(case, seen=Seen(NOW + 10, replace(told, price_per_hour=9.0, recoveries=1)))
    moved = moved.after(moved.decide())
    assert moved.attempt is not None
    assert (moved.attempt.price_per_hour, moved.attempt.recoveries) == (9.0, 1)
    assert cost_of(moved.attempt, NOW + 10) == pytest.approx(60.0 / 3600 * 2.0)


def test_pending_costs_nothing_and_ends_at_its_deadline() -> None:
    pending = Observation("ain-x-j-a1", Phase.PENDING, machine=True, price_per_hour=2.0, given="1x A100")
    attempt = attempt_in(AttemptState.LAUNCHING, intent_at=NOW - 900.0, deadline=NOW)
    case = Case(JobFold("j", JobState.LAUNCHING, attempt=1), attempt, Seen(NOW, pending))
    assert case.decide() == Decision()
    late = replace(case, seen=replace(case.seen, now=NOW + 120.0))
    decision = late.decide()
    assert decision.call == Call.STOP
    assert "waited for a machine" in decision.events[-1][1]["message"]
    after = late.after(decision)
    assert after.attempt is not None
    assert after.attempt.paid_from is None


@pytest.mark.parametrize("code", ["setup_failed", "no_resources", "quota", "bad_credentials", "bad_task"])
def test_a_cause_that_the_backend_knows_reaches_the_owner_and_is_not_tried_again(code: str) -> None:
    assert code in NOT_RETRIED
    found = replace(FAILED, machine=False, code=code, reason="No H100 in aws. Try `ainfinity gpus H100`.")
    case, decision = run({}, Seen(NOW, found), Rules(retries=5))
    job = case.after(decision).job
    assert (job.state, job.error_code) == (JobState.FAILED, code)
    assert "ainfinity gpus" in job.error_message


def test_a_task_without_our_trainer_succeeds_by_its_exit_code() -> None:
    gone = replace(DONE, machine=False)
    case, decision = run({}, Seen(NOW, gone), Rules(trainer=False))
    assert case.after(decision).job.state == JobState.SUCCEEDED
    case, decision = run({}, Seen(NOW, gone), Rules())
    assert case.after(decision).job.error_code == "no_result"


@pytest.mark.parametrize("state", [state for state in STATES if state != AttemptState.STOPPING])
@pytest.mark.parametrize("end", ["", "finished"])
def test_an_adopted_job_is_followed_and_never_touched(state: AttemptState, end: str) -> None:
    ends: set[JobState] = set()
    for found, changes in itertools.product(observations(), VARIANTS.values()):
        attempt = attempt_with(state, **changes, trainer_end=end)
        job = job_with(attempt, origin="cluster:theirs")
        rules = Rules(trainer=False, retries=3, max_cost=1.0, stuck_after=1.0, on_stuck="stop", resume_lost=False)
        seen = Seen(NOW, found, 100.0, export_problem="", watched_since=0.0, admitted=True)
        case = Case(job, attempt, seen, rules)
        decision = case.decide()
        assert decision.call == Call.NONE
        after = case.after(decision)
        if after.job.state in JOB_TERMINAL:
            ends.add(after.job.state)
        else:
            assert found is not None
            assert found.phase not in (Phase.EXITED, Phase.VANISHED)
    assert ends == {JobState.SUCCEEDED, JobState.FAILED}
    claimed = replace(case.job, claimed=True)
    stuck = replace(case, job=claimed, seen=replace(case.seen, observation=RUNNING))
    assert stuck.decide().call == Call.STOP

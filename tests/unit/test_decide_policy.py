"""`decide()` over limits of time and money, machines that stay, stuck and adopted jobs: every state × observation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ainfinity.domain.cost import least_cost
from ainfinity.domain.decide import Call, Decision, Rules, Seen
from ainfinity.domain.fold import ON_REQUEST, AttemptFold, JobFold
from ainfinity.domain.observation import Observation, Phase
from ainfinity.schema.event import TERMINAL_EVENTS, EventType
from ainfinity.schema.states import AttemptState, Desired, JobState
from tests.unit.test_decide import Case, attempt_in, check_safety, may_be_alive, possible

NOW = 200_000.0
E = EventType
#: $1 a second, for the last 50 seconds.
PRICED = {"price_per_hour": 3600.0, "priced_from": NOW - 50.0}
GIVEN = {**PRICED, "paid_from": NOW - 50.0, "given": "1x H100:8 aws"}
KEPT = {"keep_reason": "policy.keep_on_failure", "outcome": "failed", "code": "oom"}
UNFETCHED = {"keep_reason": "not yet", "outcome": "failed", "code": "export_unfetched", "fetching_since": NOW - 700.0}

#: What an attempt can be besides its state.
VARIANTS: dict[str, dict[str, object]] = {
    "plain": {},
    "in time": {"deadline": NOW + 10.0},
    "past its deadline, within the margin": {"deadline": NOW - 10.0},
    "past its deadline": {"deadline": NOW - 121.0},
    "to be extended": {"deadline": NOW + 10.0, "extend_to": NOW + 500.0},
    "to stay if it ends": {"keep_until": NOW + 100.0},
    "fetching": {"fetching_since": NOW - 100.0},
    "fetching for long": {"fetching_since": NOW - 700.0},
    "fetching for too long": {"fetching_since": NOW - 90_000.0},
    "kept": {**KEPT, "keep_until": NOW + 100.0},
    "kept past its deadline": {**KEPT, "keep_until": NOW + 100.0, "deadline": NOW - 500.0},
    "no longer kept": {**KEPT, "keep_until": NOW - 1.0},
    "torn down": {**KEPT, "keep_until": 0.0},
    "unfetched": {**UNFETCHED, "keep_until": NOW + 100.0},
    "unfetched for too long": {**UNFETCHED, "keep_until": NOW - 1.0},
    "kept on request": {"keep_reason": ON_REQUEST, "outcome": "succeeded", "keep_until": NOW + 100.0},
    "stuck": {"stuck_since": NOW - 20.0},
}
RULES: dict[str, Rules] = {
    "plain": Rules(),
    "within its budget": Rules(max_cost=60.0),
    "over its budget": Rules(max_cost=40.0, retries=3),
    "no recovery": Rules(resume_lost=False),
    "kept on failure": Rules(keep_on_failure=7200.0),
    "no trainer": Rules(trainer=False, retries=1),
    "stuck: alert": Rules(stuck_after=60.0),
    "stuck: restart": Rules(stuck_after=60.0, on_stuck="restart", resume_lost=False),
    "stuck: stop": Rules(stuck_after=60.0, on_stuck="stop", retries=1),
}
#: What the trainer said last, and what was found of its export.
_ENDS = (("", None), ("failed", None), ("finished", None), ("finished", ""), ("finished", "bad"))
STATES = (
    AttemptState.INTENDED,
    AttemptState.LAUNCHING,
    AttemptState.SETTING_UP,
    AttemptState.RUNNING,
    AttemptState.RECOVERING,
    AttemptState.STOPPING,
)


def observations() -> Iterator[Observation | None]:
    yield None
    for phase in (Phase.PENDING, Phase.SETTING_UP, Phase.RUNNING, Phase.RECOVERING):
        yield Observation("ain-x-j-a1", phase, machine=True, handle="h")
    for machine in (True, False):
        yield Observation("ain-x-j-a1", Phase.VANISHED, machine, handle="h")
        for code in (0, 1):
            yield Observation("ain-x-j-a1", Phase.EXITED, machine, handle="h", exit_code=code)


def job_with(attempt: AttemptFold, desired: Desired = Desired.RUN, **changes: object) -> JobFold:
    states = {AttemptState.RUNNING: JobState.RUNNING, AttemptState.RECOVERING: JobState.RECOVERING}
    state = states.get(attempt.state, JobState.LAUNCHING)
    if attempt.state == AttemptState.STOPPING:
        state = JobState.RUNNING
    return replace(
        JobFold("j", JobState.CANCELLING if desired == Desired.CANCEL else state, desired, attempt=1),
        **{**PRICED, **changes},
    )


def attempt_with(state: AttemptState, **changes: object) -> AttemptFold:
    return replace(attempt_in(state), **{"intent_at": NOW - 900.0, **GIVEN, **changes})


def every_case() -> Iterator[tuple[str, str, Case]]:
    for (variant, changes), (name, rules), state, found in itertools.product(
        VARIANTS.items(), RULES.items(), STATES, observations()
    ):
        if state == AttemptState.INTENDED and ("keep_reason" in changes or "fetching_since" in changes):
            continue
        over = found is not None and found.phase in (Phase.EXITED, Phase.VANISHED)
        for end, export in _ENDS if over else _ENDS[:1]:
            if state in (AttemptState.INTENDED, AttemptState.STOPPING) and end:
                continue
            stopping = {"outcome": "failed", "code": "oom", "stopping_at": NOW - 60.0}
            attempt = attempt_with(state, **changes, trainer_end=end)
            if state == AttemptState.STOPPING:
                attempt = replace(attempt, **stopping)
            seen = Seen(NOW, found, 100.0, 100.0, export, watched_since=NOW - 300.0, last_sign=NOW - 100.0)
            for desired in Desired:
                case = Case(job_with(attempt, desired), attempt, seen, rules)
                if possible(case.job, attempt):
                    yield variant, name, case


@cache
def all_cases() -> tuple[tuple[str, str, Case], ...]:
    return tuple(every_case())


def test_the_cases_are_many_and_different() -> None:
    assert len(all_cases()) > 20_000
    assert {case.attempt.state for _, _, case in all_cases() if case.attempt} == set(STATES)
    assert {case.seen.observation.phase for _, _, case in all_cases() if case.seen.observation} == set(Phase)


def check_bounds(case: Case, decision: Decision) -> None:
    """No machine stays without a reason, and none past its deadline or its budget; none goes that is to stay."""
    job, attempt, found, seen, rules = case.job, case.attempt, case.seen.observation, case.seen, case.rules
    kinds = [kind for kind, _ in decision.events]
    assert (decision.call == Call.EXTEND) == (decision.deadline is not None)
    if attempt is None or found is None or not found.machine or not may_be_alive(case):
        return
    over_budget = rules.max_cost is not None and least_cost(job, seen.now) >= rules.max_cost
    ended = found.phase in (Phase.EXITED, Phase.VANISHED)
    waits = ended and attempt.fetching_since is None and E.ATTEMPT_FETCHING in kinds
    if over_budget and not waits:
        assert decision.call == Call.STOP
    if not ended and attempt.deadline is not None and seen.now >= attempt.deadline + rules.deadline_margin:
        assert decision.call == Call.STOP
    if attempt.keep_until == 0.0 and ended and not waits:
        assert decision.call == Call.STOP
    if ended and decision.call != Call.STOP and not waits:
        promised = [data["until"] for kind, data in decision.events if kind == E.ATTEMPT_KEPT]
        until = promised[0] if promised else attempt.keep_until
        fetching = attempt.fetching_since is not None and not attempt.keep_reason
        assert (until is not None and until > seen.now) or fetching, "a machine is kept for no reason"
    if decision.call == Call.EXTEND:
        assert job.desired == Desired.RUN
        assert not ended
        assert attempt.state not in (AttemptState.INTENDED, AttemptState.STOPPING)


def test_every_decision_is_legal_safe_and_within_its_bounds() -> None:
    for variant, name, case in all_cases():
        decision = case.decide()
        try:
            case.after(decision)
            check_safety(case)
            check_bounds(case, decision)
        except AssertionError as error:
            raise AssertionError(f"{variant}, {name}: {case}: {decision}") from error


def test_it_comes_to_rest() -> None:
    for variant, name, case in all_cases():
        told: list[EventType] = []
        for _ in range(8):
            decision = case.decide()
            told += [kind for kind, _ in decision.events]
            case = case.after(decision)
            case = replace(case, seen=replace(case.seen, stop_called_ago=0.0, admitted=False))
            if not decision.events:
                break
        else:
            pytest.fail(f"still deciding: {variant}, {name}: {case}: {told}")
        once = (E.ATTEMPT_KEPT, E.ATTEMPT_STUCK, E.ATTEMPT_UNSTUCK, E.ATTEMPT_FETCHING, E.ATTEMPT_GIVEN)
        assert all(told.count(kind) <= 1 for kind in (*once, *TERMINAL_EVENTS)), told


def test_a_bound_that_is_not_kept_would_be_seen() -> None:
    """The negative control of the bounds: decisions made without them break each of them."""
    blind = Rules(deadline_margin=1e9, max_cost=None)
    for variant, name in (("past its deadline", "plain"), ("plain", "over its budget")):
        found = [case for one, other, case in all_cases() if (one, other) == (variant, name)]
        broken = 0
        for case in found:
            try:
                check_bounds(case, replace(case, rules=blind).decide())
            except AssertionError:
                broken += 1
        assert broken > 10, (variant, name)


seconds = st.floats(-1000, 1000, allow_nan=False)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    _, _, case = all_cases()[draw(st.integers(0, len(all_cases()) - 1))]
    assert case.attempt is not None
    some = {
        "deadline": draw(st.none() | seconds.map(lambda value: NOW + value)),
        "extend_to": draw(st.none() | seconds.map(lambda value: NOW + value)),
        "keep_until": draw(st.none() | st.just(0.0) | seconds.map(lambda value: NOW + value)),
    }
    rules = replace(
        case.rules,
        max_cost=draw(st.none() | st.floats(1, 100)),
        keep_on_failure=draw(st.sampled_from([0.0, 60.0])),
        retries=draw(st.integers(0, 2)),
        deadline_margin=draw(st.floats(0, 200)),
        stuck_after=draw(st.none() | st.floats(1, 500)),
        on_stuck=draw(st.sampled_from(["alert", "restart", "stop"])),
    )
    price = draw(st.none() | st.floats(0, 7200))
    spent = draw(st.none() | st.floats(0, 100))
    attempt = replace(case.attempt, **some, price_per_hour=price)
    job = replace(case.job, price_per_hour=price, spent=spent, losses=draw(st.integers(0, 6)))
    seen = replace(
        case.seen,
        last_sign=draw(st.none() | st.floats(0, NOW)),
        watched_since=draw(st.none() | st.floats(0, NOW)),
        lines_drained=draw(st.booleans()),
    )
    return Case(job, attempt, seen, rules)


@settings(derandomize=True, database=None, deadline=None, max_examples=600)
@given(cases())
def test_with_any_limits_it_is_legal_safe_and_within_its_bounds(case: Case) -> None:
    decision = case.decide()
    case.after(decision)
    check_safety(case)
    check_bounds(case, decision)

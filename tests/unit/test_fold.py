"""The fold is total: whatever events come, of whatever data, it answers, and states move along their tables only."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ainfinity.domain.cost import cost_of, total
from ainfinity.domain.fold import AttemptFold, JobFold, fold, fold_attempt, fold_job
from ainfinity.schema.event import Event, EventType
from ainfinity.schema.states import (
    ATTEMPT_STAGE,
    ATTEMPT_TERMINAL,
    JOB_MOVES,
    JOB_TERMINAL,
    AttemptState,
    Desired,
    JobState,
    may_move_attempt,
)

TRIES = settings(derandomize=True, database=None, deadline=None, max_examples=300)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
KEYS = [
    "name",
    "exit_code",
    "outcome",
    "code",
    "reason",
    "message",
    "step",
    "from_step",
    "deadline",
    "provenance",
    "cause",
    "price_per_hour",
    "given",
    "recoveries",
    "moved",
    "paid_from",
    "until",
    "backend",
]
causes = st.sampled_from(["failure", "loss"])
data = st.dictionaries(st.sampled_from(KEYS), values, max_size=4) | st.fixed_dictionaries({"cause": causes})
types = st.sampled_from(list(EventType)) | st.sampled_from(["job.archived", "attempt.paused", "", "trainer."])
events = st.builds(
    Event,
    type=types,
    job_id=st.just("j"),
    at=st.floats(0, 1e9),
    actor=st.just("x"),
    attempt=st.integers(0, 3),
    data=data,
)


@TRIES
@given(st.lists(events, max_size=40))
def test_it_answers_to_anything_and_moves_along_the_tables(history: list[Event]) -> None:
    job = JobFold("j")
    attempts: dict[int, AttemptFold] = {}
    for event in history:
        before, job = job, fold_job(job, event)
        assert job.state == before.state or job.state in JOB_MOVES[before.state]
        assert job.attempt >= before.attempt
        old = attempts.get(event.attempt)
        new = fold_attempt(old, event) if event.attempt else None
        if new is not None:
            assert old is None or new.state == old.state or may_move_attempt(old.state, new.state)
            assert old is None or ATTEMPT_STAGE[new.state] >= ATTEMPT_STAGE[old.state]
            assert new.exit_code is None or type(new.exit_code) is int
            attempts[event.attempt] = new
    assert fold("j", history) == (job, attempts)


@TRIES
@given(st.lists(events, max_size=20), events)
def test_a_finished_job_comes_back_by_a_retry_only(history: list[Event], event: Event) -> None:
    job, _ = fold("j", history)
    after = fold_job(job, event)
    if job.state in JOB_TERMINAL and after.state != job.state:
        assert event.type == EventType.RETRIED
        assert after.desired == Desired.RUN
        assert after.finished_at is None


@TRIES
@given(st.lists(events, max_size=20), events)
def test_an_unknown_event_changes_nothing(history: list[Event], event: Event) -> None:
    job, attempts = fold("j", history)
    unknown = Event("job.teleported", "j", event.at, "x", event.attempt, event.data)
    assert fold_job(job, unknown) is job
    for attempt in attempts.values():
        assert fold_attempt(attempt, unknown) is attempt


def told(*history: tuple[EventType, dict[str, Any]], attempt: int = 1) -> tuple[JobFold, dict[int, AttemptFold]]:
    numbered = enumerate(history, 1)
    return fold(
        "j",
        [
            Event(kind, "j", float(seq), "x", 0 if kind.startswith("job.") else attempt, {"name": "n"} | more, seq)
            for seq, (kind, more) in numbered
        ],
    )


LAUNCHED = ((EventType.SUBMITTED, {}), (EventType.QUEUED, {}), (EventType.ATTEMPT_INTENDED, {}))


def test_a_whole_life() -> None:
    job, attempts = told(
        *LAUNCHED,
        (EventType.ATTEMPT_LAUNCHED, {"handle": "h"}),
        (EventType.ATTEMPT_RUNNING, {}),
        (EventType.TRAINER_CHECKPOINT, {"step": 2}),
        (EventType.TRAINER_FINISHED, {"files": []}),
        (EventType.ATTEMPT_SUCCEEDED, {"exit_code": 0}),
        (EventType.SUCCEEDED, {}),
    )
    assert (job.state, job.attempt, job.started_at, job.finished_at) == (JobState.SUCCEEDED, 1, 5.0, 9.0)
    assert job.checkpoint_step == 2
    one = attempts[1]
    assert (one.state, one.handle, one.exit_code, one.trainer_end) == (AttemptState.SUCCEEDED, "h", 0, "finished")


def test_a_cancel_is_not_undone_by_what_comes_late() -> None:
    late = [EventType.ATTEMPT_RUNNING, EventType.QUEUED, EventType.SUCCEEDED, EventType.RETRIED, EventType.SUBMITTED]
    job, _ = told(*LAUNCHED, (EventType.CANCEL_REQUESTED, {}), *((kind, {}) for kind in late))
    assert (job.state, job.desired, job.finished_at) == (JobState.CANCELLING, Desired.CANCEL, None)


def test_the_end_of_a_job_is_told_once() -> None:
    job, _ = told(*LAUNCHED, (EventType.FAILED, {"code": "oom"}), (EventType.FAILED, {"code": "later"}))
    assert (job.error_code, job.finished_at) == ("oom", 4.0)


def test_a_checkpoint_takes_back_losses_only_once() -> None:
    lost = (EventType.ATTEMPT_LOST, {}), (EventType.QUEUED, {"cause": "loss"})
    saved = EventType.TRAINER_CHECKPOINT, {"step": 0}
    assert told(*LAUNCHED, *lost, saved)[0].losses == 0
    # A resumed run that gets no further than the same checkpoint has made no progress.
    assert told(*LAUNCHED, saved, *lost, saved)[0].losses == 1


def test_a_trainer_that_starts_again_takes_back_its_end() -> None:
    stopped = EventType.TRAINER_STOPPED, {"reason": "sigterm"}
    assert told(*LAUNCHED, stopped)[1][1].trainer_end == "stopped"
    again = told(*LAUNCHED, stopped, (EventType.TRAINER_STARTED, {}))[1][1]
    assert (again.trainer_end, again.trainer_code) == ("", "")


def test_an_intent_is_renewed_only_while_it_is_one() -> None:
    again = (EventType.ATTEMPT_INTENDED, {"deadline": 99.0})
    renewed = told(*LAUNCHED, again)[1][1]
    assert (renewed.calls, renewed.intent_at, renewed.deadline) == (2, 4.0, 99.0)
    kept = told(*LAUNCHED, (EventType.ATTEMPT_LAUNCHED, {"handle": "h"}), again)[1][1]
    assert (kept.calls, kept.intent_at, kept.state) == (1, 3.0, AttemptState.LAUNCHING)


def test_an_attempt_whose_trainer_has_spoken_is_no_mere_intent() -> None:
    assert told(*LAUNCHED, (EventType.TRAINER_STARTED, {}))[1][1].state == AttemptState.LAUNCHING


def test_an_attempt_that_is_over_stays_over() -> None:
    for state in ATTEMPT_TERMINAL:
        attempt = AttemptFold("j", 1, "n", state)
        for kind in EventType:
            after = fold_attempt(attempt, Event(kind, "j", 1.0, "x", 1))
            assert after is not None
            assert after.state == state


def test_a_retry_keeps_the_loss_from_before_any_training() -> None:
    def event(kind: EventType, attempt: int = 0, **data: float) -> Event:
        return Event(kind, "j", 1.0, "x", attempt, dict(data))

    job = JobFold("j", JobState.RUNNING, attempt=1)
    for one in (
        event(EventType.TRAINER_EVAL, 1, loss=3.7),
        event(EventType.FAILED),
        event(EventType.RETRIED),
        event(EventType.TRAINER_EVAL, 2, loss=2.9),
    ):
        job = fold_job(job, one)
    assert (job.result["eval_first"], job.result["eval_last"]) == ({"loss": 3.7}, {"loss": 2.9})


#: An attempt's life as a backend tells it: seconds that pass, then an event.
steps = st.lists(
    st.tuples(
        st.floats(0, 10_000),
        st.sampled_from(
            [
                (EventType.ATTEMPT_SETTING_UP, {}),
                (EventType.ATTEMPT_RUNNING, {}),
                (EventType.ATTEMPT_RECOVERING, {}),
                (EventType.ATTEMPT_GIVEN, {"price_per_hour": 2.0, "given": "a"}),
                (EventType.ATTEMPT_GIVEN, {"price_per_hour": None, "given": "b", "moved": True}),
                (EventType.ATTEMPT_GIVEN, {"price_per_hour": 5.0, "given": "c", "moved": True}),
            ]
        ),
    ),
    max_size=8,
)


@TRIES
@given(st.lists(steps, min_size=1, max_size=3), st.floats(0, 10_000))
def test_a_job_costs_what_its_attempts_cost(lives: list[Any], rest: float) -> None:
    """The job's meter, which sees events alone, and those of its attempts agree at any moment."""
    history: list[Event] = [Event(EventType.SUBMITTED, "j", 0.0, "x"), Event(EventType.QUEUED, "j", 0.0, "x")]
    now = 0.0
    for number, life in enumerate(lives, 1):
        history.append(Event(EventType.ATTEMPT_INTENDED, "j", now, "x", number, {"name": f"n{number}"}))
        for wait, (kind, more) in life:
            now += wait
            history.append(Event(kind, "j", now, "x", number, more))
        if number < len(lives):
            now += rest
            history.append(Event(EventType.ATTEMPT_LOST, "j", now, "x", number))
            history.append(Event(EventType.QUEUED, "j", now, "x", 0, {"cause": "loss"}))
    job, attempts = fold("j", history)
    whole = total(cost_of(attempt, now + rest) for attempt in attempts.values())
    mine = cost_of(job, now + rest)
    assert (mine is None) == (whole is None)
    if mine is not None and whole is not None:
        assert abs(mine - whole) < 1e-6


def test_an_unknown_price_is_never_nothing() -> None:
    begun = told(*LAUNCHED, (EventType.ATTEMPT_RUNNING, {}))
    assert cost_of(begun[0], 100.0) is None
    assert cost_of(begun[1][1], 100.0) is None
    late = (EventType.ATTEMPT_RUNNING, {}), (EventType.ATTEMPT_GIVEN, {"price_per_hour": 3600.0})
    assert cost_of(told(*LAUNCHED, *late)[0], 14.0) == 10.0, "a price that is told late counts from the beginning"
    moved = (EventType.ATTEMPT_RUNNING, {}), (EventType.ATTEMPT_GIVEN, {"price_per_hour": 3600.0, "moved": True})
    assert cost_of(told(*LAUNCHED, *moved)[0], 14.0) is None, "what the machine before it cost stays unknown"

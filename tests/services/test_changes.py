"""What changed since a cursor: all of it, in order, once."""

from __future__ import annotations

import random

from ainfinity.schema.event import EventType
from ainfinity.schema.states import JobState
from ainfinity.schema.views import Progress
from ainfinity.services.changes import ChangeService
from ainfinity.store import metrics, progress
from tests.services.workplace import ADMIN, Workplace


def read_all(service: ChangeService, cursor: int, rev: int) -> list[int]:
    """Follow the feed to its end and return the `seq` of all events in it."""
    seen: list[int] = []
    while True:
        item = service.since(cursor, rev)
        if not item.events and not item.progress:
            assert (item.cursor, item.rev) == (cursor, rev)
            return seen
        assert item.cursor == (item.events[-1].seq if item.events else cursor)
        seen += [event.seq for event in item.events]
        assert {row.id for row in item.jobs} <= {event.job_id for event in item.events}
        cursor, rev = item.cursor, item.rev


def test_every_cursor_gives_all_that_came_after_it(work: Workplace) -> None:
    for number in range(7):
        work.in_state(JobState.SUCCEEDED, f"job-{number}")
    service = ChangeService(work.store)
    everything = [event.seq for event in work.events()]
    assert everything == list(range(1, len(everything) + 1))
    for cursor in range(len(everything) + 1):
        assert read_all(service, cursor, 0) == everything[cursor:]
    assert service.now() == (everything[-1], 0)


def test_a_front_far_behind_gets_several_items(work: Workplace) -> None:
    job = work.in_state(JobState.RUNNING)
    work.record(job, *[(EventType.TRAINER_SAMPLE, {"step": step}) for step in range(1200)])
    service = ChangeService(work.store)
    first = service.since(0, 0)
    assert len(first.events) < 1200
    assert read_all(service, 0, 0) == [event.seq for event in work.events()]


def test_rows_and_progress_come_along(work: Workplace) -> None:
    one, two = work.in_state(JobState.RUNNING, "one"), work.in_state(JobState.RUNNING, "two")
    service = ChangeService(work.store)
    cursor, rev = service.now()
    with work.store.write() as connection:
        progress.put(connection, one, Progress(step=3, total_steps=9, loss=1.5))
    item = service.since(cursor, rev)
    assert (item.events, item.jobs, list(item.progress)) == ((), (), [one])
    assert item.progress[one].loss == 1.5
    assert service.since(item.cursor, item.rev).progress == {}
    work.service.stop_job(two, ADMIN)
    item = service.since(item.cursor, item.rev)
    assert [row.state for row in item.jobs] == ["cancelling"]


def test_two_fronts_that_stop_and_resume_anywhere_see_the_same(work: Workplace) -> None:
    chance = random.Random(5)
    service = ChangeService(work.store)
    fronts = [[0, 0], [0, 0]]
    seen: list[list[int]] = [[], []]
    for number in range(12):
        work.in_state(chance.choice(list(JobState)[2:]), f"job-{number}")
        for front, mine in zip(fronts, seen, strict=True):
            if chance.random() < 0.5:
                item = service.since(*front)
                mine += [event.seq for event in item.events]
                front[:] = [item.cursor, item.rev]
    for front, mine in zip(fronts, seen, strict=True):
        mine += read_all(service, *front)
        assert mine == [event.seq for event in work.events()]


def test_events_of_one_job(work: Workplace) -> None:
    one, two = work.launch("one").id, work.launch("two").id
    service = ChangeService(work.store)
    assert {event.job_id for event in service.events("two")} == {two}
    first = service.events(one, limit=2)
    rest = service.events(one, after=first[-1].seq)
    assert [event.seq for event in first + rest] == [event.seq for event in work.events(one)]


def test_metrics_go_on_after_a_place_and_are_thinned_out(work: Workplace) -> None:
    job = work.in_state(JobState.RUNNING)
    points = [(step, step, float(step), {"loss": 1.0 / step, "lr": 0.1}) for step in range(1, 101)]
    with work.store.write() as connection:
        metrics.append_chunk(connection, job, 1, points)
        metrics.append_chunk(connection, job, 2, points[:5])
    service = ChangeService(work.store)
    everything = service.metrics(job)
    assert [(point.attempt, point.step) for point in everything][98:102] == [(1, 99), (1, 100), (2, 1), (2, 2)]
    assert next((point.attempt, point.step) for point in service.metrics(job, after=(1, 100))) == (2, 1)
    assert set(service.metrics(job, names=["loss"])[0].values) == {"loss"}
    few = service.metrics(job, limit=10)
    assert len(few) <= 10
    assert (few[0], few[-1]) == (everything[0], everything[-1])


def test_the_worker_is_alive_as_long_as_its_lease(work: Workplace) -> None:
    from ainfinity.engine.fence import Fence

    service = ChangeService(work.store)
    assert not service.worker().alive
    fence = Fence(work.store, "me", ttl=10.0, renew_after=3.0, info="1.0")
    assert fence.acquire()
    work.launch("one")
    work.launch("two", policy__approval="required")
    status = service.worker()
    assert (status.alive, status.holder, status.live_jobs, status.version) == (True, "me", 1, "1.0")
    work.clock.move(10.0)
    assert not service.worker().alive

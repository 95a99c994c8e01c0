"""The engine over the fake backend: what it does when calls, leases and wishes cross each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ainfinity.compute.fake import FakeCompute, Weather, World
from ainfinity.compute.port import LaunchRequest
from ainfinity.core.exceptions import DatabaseLocked, FolderUnwritable, LeaseLost
from ainfinity.engine.fence import Fence
from tests.engine.workshop import Engine, Workshop, shop_settings
from tests.services.workplace import ADMIN, TickingClock, copy_database

INFRA = {"resources__infra": "fake"}


class Bench(Workshop):
    """A workshop with a fake backend and a clock that only the test moves."""

    def __post_init__(self) -> None:
        self.clock = TickingClock()
        super().__post_init__()
        self.service.backends = ("fake",)
        self.world = World()

    def fake(self, **given: Any) -> FakeCompute:
        return FakeCompute(self.world, self.clock, **given)

    def play(self, engine: Engine, job: str, *states: str, ticks: int = 60) -> str:
        """Tick, a second each, until the job is in one of the states."""
        for _ in range(ticks):
            engine.tick()
            if self.row(job).state in states:
                return self.row(job).state
            self.clock.move(1)
        raise AssertionError(f"after {ticks} ticks: {self.row(job)}")

    def job(self, name: str = "first", **changes: Any) -> str:
        return self.launch(name, **INFRA | changes).id


@pytest.fixture
def bench(tmp_path: Path, template: Path) -> Iterator[Bench]:
    settings = shop_settings(tmp_path)
    copy_database(template, settings.data_dir)
    bench = Bench(tmp_path, settings)
    yield bench
    bench.check_fold()
    bench.store.close()


OVER = ("succeeded", "failed", "cancelled")


def test_the_higher_priority_goes_first_and_equals_in_order(bench: Bench) -> None:
    names = {"low": -5, "one": 0, "two": 0, "high": 7}
    jobs = {}
    for name, priority in names.items():
        jobs[name] = bench.job(name, policy__priority=priority)
        bench.clock.move(1)
    with bench.engine(bench.fake(slots=1)) as engine:
        for job in jobs.values():
            bench.play(engine, job, *OVER)
    begun = [event.job_id for event in bench.events() if event.type == "attempt.intended"]
    assert begun == [jobs[name] for name in ("high", "one", "two", "low")]
    assert max(bench.world.copies(name, bench.clock.now()) for name in bench.world.machines) <= 1


def test_without_contact_nothing_changes_but_that_it_is_stale(bench: Bench) -> None:
    job = bench.job()
    with bench.engine(bench.fake(weather=Weather(run=(300.0, 300.0)))) as engine:
        bench.play(engine, job, "running")
        before, calls = bench.row(job), bench.world.calls.copy()
        bench.world.outage = bench.clock.now() + 100
        for _ in range(5):
            bench.clock.move(15)
            engine.fence.renew()
            engine.tick()
        row = bench.row(job)
        assert row.stale_since is not None
        assert replace(row, stale_since=None, seq=before.seq) == before
        assert [event.type for event in bench.events(job)].count("contact.lost") == 1
        assert bench.world.calls["launch"] == calls["launch"]
        assert bench.world.calls["stop"] == calls["stop"]
        bench.clock.move(30)
        engine.fence.renew()
        engine.tick(2)
        assert bench.row(job).state == "running"
    assert bench.row(job).stale_since is None
    assert [event.type for event in bench.events(job)].count("contact.restored") == 1


@pytest.mark.parametrize("when", ["queued", "launching", "running", "recovering"])
def test_cancel_at_each_phase(bench: Bench, when: str) -> None:
    job = bench.job()
    weather = Weather(setup=(3.0, 3.0), run=(20.0, 20.0), recover=1.0, stop=(2.0, 2.0))
    with bench.engine(bench.fake(weather=weather)) as engine:
        if when != "queued":
            bench.play(engine, job, when)
        state = bench.service.stop_job(job, ADMIN).state
        assert state == ("cancelled" if when == "queued" else "cancelling")
        assert bench.play(engine, job, *OVER) == "cancelled"
    assert not bench.world.running(bench.clock.now())
    assert [event.type for event in bench.events(job)].count("job.cancelled") == 1


@pytest.mark.parametrize("step", ["launch:intended", "launch:called", "launch:recorded"])
def test_cancel_within_a_launch(bench: Bench, step: str) -> None:
    job = bench.job()
    hit: list[str] = []

    def probe(name: str) -> None:
        if name == step and not hit:
            hit.append(name)
            bench.service.stop_job(job, ADMIN)

    with bench.engine(bench.fake(), probe) as engine:
        assert bench.play(engine, job, *OVER) == "cancelled"
    assert hit == [step]
    assert sum(bench.world.launches.values()) == (0 if step == "launch:intended" else 1)
    assert not bench.world.running(bench.clock.now())


@pytest.mark.parametrize("fault", ["launch_lost", "launch_reply_lost"])
def test_a_launch_without_an_answer_happens_once(bench: Bench, fault: str) -> None:
    job = bench.job()
    bench.world.script["launch"].append(fault)
    with bench.engine(bench.fake(lag=5.0)) as engine:
        engine.tick()
        bench.clock.move(1)
        assert bench.play(engine, job, *OVER) == "succeeded"
    assert list(bench.world.launches.values()) == [1]
    assert len(bench.service.get_job_status(job).attempts) == 1


def test_a_launch_that_is_refused_fails_with_its_reason(bench: Bench) -> None:
    job = bench.job(policy__retries=3)
    bench.world.script["launch"].append("launch_refused")
    with bench.engine(bench.fake()) as engine:
        assert bench.play(engine, job, *OVER) == "failed"
    row = bench.row(job)
    assert (row.error_code, row.attempt) == ("refused", 1)
    assert "Change what is asked for" in row.error_message


def test_a_secret_that_is_gone_fails_the_job_by_name(bench: Bench) -> None:
    job = bench.job(secrets=("HF_TOKEN",))
    good = bench.job("good")
    with bench.engine(bench.fake()) as engine:
        assert bench.play(engine, job, *OVER) == "failed"
        assert bench.play(engine, good, *OVER) == "succeeded"
        assert bench.row(job).error_code == "not_found"
        assert "HF_TOKEN" in bench.row(job).error_message
        bench.secrets["HF_TOKEN"] = "canary-in-the-fake"
        bench.service.retry_job(job, ADMIN)
        assert bench.play(engine, job, *OVER) == "succeeded"


def lose_lease(bench: Bench) -> None:
    """Another worker takes over, as it may once the lease has run out."""
    bench.clock.move(60)
    assert Fence(bench.store, "other", ttl=10.0, renew_after=3.0).acquire()


STEPS = ["launch:intended", "launch:called", "observe:seen", "observe:recorded", "ingest:read", "cancel:stopping"]


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_that_lost_its_lease_writes_nothing_more(bench: Bench, step: str) -> None:
    job = bench.job()
    lost: list[int] = []

    def probe(name: str) -> None:
        if name == step and not lost:
            lose_lease(bench)
            lost.append(len(bench.events()))

    with bench.engine(bench.fake(), probe) as engine:
        if step == "cancel:stopping":
            bench.play(engine, job, "running")
            bench.service.stop_job(job, ADMIN)
        with pytest.raises(LeaseLost):
            bench.play(engine, job, "cancelled", "succeeded")
        assert len(bench.events()) == lost[0]
        assert sum(bench.world.launches.values()) == (
            1 if step in ("launch:called", "ingest:read", "cancel:stopping") else 0
        )
        assert bench.world.calls["stop"] == 0
    # Who has the lease now finishes the job, with the one machine there is.
    bench.clock.move(120)
    with bench.engine(bench.fake(), holder="third") as engine:
        assert bench.play(engine, job, *OVER) == ("cancelled" if step == "cancel:stopping" else "succeeded")
    assert list(bench.world.launches.values()) == [1]


def test_a_paused_worker_makes_no_call_once_its_lease_ran_out(bench: Bench) -> None:
    """Nobody else has taken it: the database would still let it write, but a call cannot be fenced."""
    job = bench.job()

    def probe(name: str) -> None:
        if name == "launch:intended":
            bench.clock.move(60)

    with bench.engine(bench.fake(), probe) as engine, pytest.raises(LeaseLost):
        engine.tick()
    assert bench.world.launches == {}
    with bench.engine(bench.fake(), holder="next") as engine:
        assert bench.play(engine, job, *OVER) == "succeeded"


@pytest.mark.parametrize("error", [DatabaseLocked("locked"), FolderUnwritable("full")], ids=lambda error: error.code)
def test_trouble_with_the_database_at_a_launch_is_no_failure_of_the_job(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    job = bench.job()
    with bench.engine(bench.fake()) as engine:
        real: Callable[[], None] = engine.fence.must_hold
        troubled = [error]

        def must_hold() -> None:
            if troubled and bench.row(job).state == "launching":
                raise troubled.pop()
            real()

        monkeypatch.setattr(engine.fence, "must_hold", must_hold)
        with pytest.raises(type(error)):
            engine.tick()
        assert not troubled
        assert bench.row(job).state == "launching"
        assert bench.play(engine, job, *OVER) == "succeeded"


def test_machines_of_another_installation_are_left_alone(bench: Bench) -> None:
    """Two databases may share a data folder, as after AINFINITY_DATABASE_URL was set to try something."""
    compute = bench.fake(weather=Weather(run=(1000.0, 1000.0)))
    request = LaunchRequest("ain-00000000-aaaaaaaaaa-a1", "aaaaaaaaaa", 1, {}, "/out", "/checkpoints")
    compute.launch(request)
    with bench.engine(compute) as engine:
        for _ in range(5):
            engine.tick()
            bench.clock.move(1)
    assert bench.world.running(bench.clock.now()) == {request.name}
    assert request.name not in bench.world.released


def test_machines_of_ours_that_no_live_job_owns_are_stopped(bench: Bench) -> None:
    """The control of the test above."""
    job = bench.job()
    compute = bench.fake(weather=Weather(run=(1000.0, 1000.0)))
    with bench.engine(compute) as engine:
        bench.play(engine, job, "running")
        mine = next(iter(bench.world.machines))
        stray = mine.replace(job, "bbbbbbbbbb")
        compute.launch(LaunchRequest(stray, "bbbbbbbbbb", 1, {}, "/out", "/checkpoints"))
        for _ in range(5):
            engine.tick()
            bench.clock.move(1)
        assert bench.world.running(bench.clock.now()) == {mine}


def test_one_bad_job_does_not_hold_up_the_others(bench: Bench) -> None:
    """A spec that this version cannot read any more, as after a downgrade."""
    from ainfinity.store.events import JOB

    bad, good = bench.job("bad"), bench.job("good")
    with bench.store.write() as connection:
        spec = bench.service.get_job_status(bad).spec
        spec["recipe"]["of_a_newer_version"] = 1
        connection.execute(JOB.update().where(JOB.c.id == bad).values(spec=spec))
    with bench.engine(bench.fake()) as engine:
        assert bench.play(engine, good, *OVER) == "succeeded"
        assert bench.play(engine, bad, *OVER) == "failed"
    assert "of_a_newer_version" in bench.row(bad).error_message

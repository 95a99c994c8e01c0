"""The engine over machines that cost: limits, keeping, extending and silence, by the rules of its jobs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ainfinity.compute.fake import Weather
from tests.engine.test_rules import Bench
from tests.engine.workshop import shop_settings
from tests.services.workplace import ADMIN, copy_database

#: A dollar a second.
DEAR = Weather(run=(50.0, 50.0), price=(3600.0, 3600.0))
OVER = ("succeeded", "failed", "cancelled")


@pytest.fixture
def bench(tmp_path: Path, template: Path) -> Iterator[Bench]:
    settings = shop_settings(tmp_path, default_deadline=1000.0, keep_unfetched=300.0)
    copy_database(template, settings.data_dir)
    made = Bench(tmp_path, settings)
    yield made
    made.check_fold()
    made.store.close()


def kinds(bench: Bench, job: str) -> list[str]:
    return [event.type for event in bench.events(job)]


def test_every_launch_elsewhere_carries_a_deadline(bench: Bench) -> None:
    limits: dict[str, dict[str, Any]] = {"plain": {}, "long": {"policy__max_duration": 77.0}}
    for name, changes in limits.items():
        bench.job(name, **changes)
    with bench.engine(bench.fake()) as engine:
        engine.tick()
    now = bench.clock.now()
    told = {job.name: bench.attempt(job.name).deadline - now for job in bench.service.list_jobs()}
    assert told == {"plain": 1000.0, "long": 77.0}


def test_a_job_ends_when_its_budget_does(bench: Bench) -> None:
    job = bench.job(policy__max_cost=20.0, policy__retries=5)
    with bench.engine(bench.fake(weather=DEAR)) as engine:
        assert bench.play(engine, job, *OVER) == "failed"
    row = bench.service.get_job_status(job).job
    assert row.error_code in ("max_cost", "deadline"), "by its machine, or from here"
    assert row.cost is not None
    assert 15.0 < row.cost < 25.0
    assert not bench.world.running(bench.clock.now())
    assert "attempt.extended" in kinds(bench, job), "its machine was told when the money ends"


def test_an_extension_reaches_the_machine(bench: Bench) -> None:
    job = bench.job(policy__max_duration=20.0)
    bench.world.script["extend"].append("timeout")
    with bench.engine(bench.fake(weather=DEAR)) as engine:
        bench.play(engine, job, "running")
        bench.service.extend_job(job, 100.0, ADMIN)
        assert bench.play(engine, job, *OVER, ticks=90) == "succeeded"
    assert kinds(bench, job).count("attempt.extended") == 1
    assert bench.world.calls["extend"] == 2, "asked again, as the first got no answer"


def test_a_machine_that_is_deaf_is_ended_from_here(bench: Bench) -> None:
    job = bench.job(policy__max_duration=5.0)
    weather = replace(DEAR, deaf=1.0, silent=1.0)
    margin = 3 * bench.settings.stop_grace
    with bench.engine(bench.fake(weather=weather)) as engine:
        assert bench.play(engine, job, *OVER) == "failed"
    (machine,) = bench.world.machines[bench.attempt(job).name]
    assert machine.stopped is not None
    assert margin <= machine.stopped - machine.begins - 5.0 <= margin + 3.0
    assert bench.row(job).error_code == "deadline"


def test_a_failed_machine_is_kept_then_torn_down_by_a_word(bench: Bench) -> None:
    job = bench.job(policy__keep_on_failure="2h")
    with bench.engine(bench.fake(weather=replace(DEAR, run=(5.0, 5.0), fail=1.0, linger=1.0))) as engine:
        for _ in range(30):
            engine.tick()
            bench.clock.move(1)
        row = bench.row(job)
        assert row.kept_until is not None
        assert kinds(bench, job).count("attempt.kept") == 1
        assert bench.world.running(bench.clock.now())
        bench.service.teardown_job(job, ADMIN)
        assert bench.play(engine, job, *OVER) == "failed"
    assert (bench.row(job).error_code, bench.row(job).kept_until) == ("oom", None)
    assert not bench.world.running(bench.clock.now())
    notices = (bench.settings.data_dir / "notices.jsonl").read_text()
    assert notices.count("attempt.kept") == 1


def test_an_export_out_of_reach_is_an_alert_and_then_a_failure(bench: Bench) -> None:
    job = bench.job()
    with bench.engine(bench.fake(weather=replace(DEAR, run=(5.0, 5.0), away=1.0))) as engine:
        assert bench.play(engine, job, *OVER, ticks=400) == "failed"
    (kept,) = [event for event in bench.events(job) if event.type == "attempt.kept"]
    assert kept.data["price_per_hour"] == 3600.0
    fetching = next(event.at for event in bench.events(job) if event.type == "attempt.fetching")
    stopping = next(event.at for event in bench.events(job) if event.type == "attempt.stopping")
    assert (kept.data["until"] - fetching, stopping - fetching) == (300.0, 300.0)
    assert bench.row(job).error_code == "export_unfetched"


@pytest.mark.parametrize(("on_stuck", "code"), [("stop", "stuck"), ("alert", "deadline")])
def test_silence_is_told_and_answered_as_the_policy_says(bench: Bench, on_stuck: str, code: str) -> None:
    policy = {"policy__stuck_after": 30.0, "policy__on_stuck": on_stuck, "policy__max_duration": 100.0}
    job = bench.job(**policy)
    with bench.engine(bench.fake(weather=replace(DEAR, silent=1.0))) as engine:
        assert bench.play(engine, job, *OVER, ticks=200) == "failed"
    assert bench.row(job).error_code == code
    assert kinds(bench, job).count("attempt.stuck") == 1


def test_a_stuck_job_is_restarted_from_its_checkpoint(bench: Bench) -> None:
    job = bench.job(policy__stuck_after=30.0, policy__on_stuck="restart")
    compute = bench.fake(weather=replace(DEAR, silent=1.0))
    with bench.engine(compute) as engine:
        for _ in range(100):
            engine.tick()
            bench.clock.move(1)
            if "attempt.stuck" in kinds(bench, job):
                compute.weather = DEAR
        assert bench.play(engine, job, *OVER, ticks=100) == "succeeded"
    assert [one.state for one in bench.service.get_job_status(job).attempts] == ["lost", "succeeded"]


def test_no_contact_is_no_silence(bench: Bench) -> None:
    job = bench.job(policy__stuck_after=30.0, policy__on_stuck="stop")
    with bench.engine(bench.fake(weather=replace(DEAR, run=(400.0, 400.0), price=(0.0, 0.0)))) as engine:
        bench.play(engine, job, "running")
        bench.world.outage = bench.clock.now() + 60
        for _ in range(80):
            engine.fence.renew()
            engine.tick()
            bench.clock.move(1)
        assert "attempt.stuck" not in kinds(bench, job)
        assert bench.row(job).state == "running"


def test_a_sign_takes_the_alert_back(bench: Bench) -> None:
    """Steps come every 80 s, and half a minute without one is an alert."""
    job = bench.job(policy__stuck_after=30.0)
    with bench.engine(bench.fake(weather=replace(DEAR, run=(400.0, 400.0)))) as engine:
        assert bench.play(engine, job, *OVER, ticks=500) == "succeeded"
    signs = [kind for kind in kinds(bench, job) if kind in ("attempt.stuck", "attempt.unstuck")]
    assert signs[:4] == ["attempt.stuck", "attempt.unstuck"] * 2
    assert bench.row(job).stuck_since is None

"""Calls to a backend elsewhere: each on a thread, none holding up what it does not concern."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ainfinity.compute.fake import FakeCompute
from ainfinity.compute.port import LaunchRequest
from ainfinity.core.exceptions import ComputeUnreachable, Refused
from ainfinity.domain.observation import Observation
from ainfinity.engine.backends import PATIENCE, Backend
from tests.engine.test_rules import OVER, Bench
from tests.engine.workshop import Engine, shop_settings, wait_for
from tests.services.workplace import ADMIN, copy_database


class Elsewhere(FakeCompute):
    """The fake behind a network: a call about a name waits while its gate is shut."""

    remote = True

    def __init__(self, *arguments: Any, **given: Any) -> None:
        super().__init__(*arguments, **given)
        self.gates: dict[str, threading.Event] = {}
        self.entered: list[str] = []
        self.failing: dict[str, Exception] = {}
        self._one_at_a_time = threading.Lock()

    def shut(self, call: str) -> threading.Event:
        self.gates[call] = threading.Event()
        return self.gates[call]

    def _pass(self, call: str) -> None:
        self.entered.append(call)
        if call in self.gates:
            assert self.gates[call].wait(60)
        if call in self.failing:
            raise self.failing.pop(call)

    def observe_all(self) -> Mapping[str, Observation]:
        self._pass("look")
        with self._one_at_a_time:
            return super().observe_all()

    def launch(self, request: LaunchRequest) -> str:
        self._pass(f"launch {request.job_id}")
        with self._one_at_a_time:
            return super().launch(request)

    def stop(self, name: str) -> None:
        self._pass(f"stop {name}")
        with self._one_at_a_time:
            super().stop(name)


@pytest.fixture
def bench(tmp_path: Path, template: Path) -> Iterator[Bench]:
    settings = replace(shop_settings(tmp_path), poll=0.0)
    copy_database(template, settings.data_dir)
    bench = Bench(tmp_path, settings)
    yield bench
    bench.check_fold()
    bench.store.close()


def elsewhere(bench: Bench) -> Elsewhere:
    return Elsewhere(bench.world, bench.clock, lag=2.0)


def until(bench: Bench, engine: Engine, condition: Callable[[], Any], what: str) -> None:
    """Tick, a tenth of a second of the bench's clock each, until the condition holds."""

    def tick() -> Any:
        engine.tick()
        bench.clock.move(0.1)
        return condition()

    wait_for(tick, what, pause=0.005)


def is_in(bench: Bench, job: str, *states: str) -> Callable[[], bool]:
    return lambda: bench.row(job).state in states


def test_a_launch_that_hangs_holds_up_no_other_job(bench: Bench) -> None:
    compute = elsewhere(bench)
    stuck, other = bench.job("stuck"), bench.job("other")
    gate = compute.shut(f"launch {stuck}")
    with bench.engine(compute) as engine:
        until(bench, engine, is_in(bench, other, *OVER), "the other job to end")
        assert bench.row(other).state == "succeeded"
        assert bench.attempt(stuck).state == "intended"
        gate.set()
        until(bench, engine, is_in(bench, stuck, "succeeded"), "the stuck job to end")
    assert set(bench.world.launches.values()) == {1}
    assert bench.attempt(stuck).number == 1


def test_a_launch_that_hangs_beyond_the_grace_is_not_made_again(bench: Bench) -> None:
    compute = elsewhere(bench)
    job = bench.job()
    gate = compute.shut(f"launch {job}")
    with bench.engine(compute) as engine:
        until(bench, engine, lambda: f"launch {job}" in compute.entered, "the launch")
        for _ in range(40):
            engine.tick()
            bench.clock.move(0.5)
        gate.set()
        until(bench, engine, is_in(bench, job, "succeeded"), "the end")
    assert compute.entered.count(f"launch {job}") == 1
    assert set(bench.world.launches.values()) == {1}


def test_a_cancel_passes_a_launch_that_hangs_and_nothing_stays(bench: Bench) -> None:
    compute = elsewhere(bench)
    job = bench.job()
    gate = compute.shut(f"launch {job}")
    with bench.engine(compute) as engine:
        until(bench, engine, lambda: f"launch {job}" in compute.entered, "the launch")
        bench.service.stop_job(job, ADMIN)
        name = bench.attempt(job).name
        until(bench, engine, lambda: f"stop {name}" in compute.entered, "the stop")
        for _ in range(40):
            engine.tick()
            bench.clock.move(0.5)
        assert bench.row(job).state == "cancelling"  # what hangs may still take effect
        gate.set()
        until(bench, engine, is_in(bench, job, "cancelled"), "the end")
        bench.clock.move(10)
    assert bench.world.running(bench.clock.now()) == set()


def test_a_look_that_hangs_makes_jobs_stale_and_starts_nothing_twice(bench: Bench) -> None:
    compute = elsewhere(bench)
    job = bench.job()
    with bench.engine(compute) as engine:
        until(bench, engine, is_in(bench, job, "running"), "the job to run")
        gate = compute.shut("look")
        until(bench, engine, lambda: compute.entered[-1] == "look", "a look")
        bench.clock.move(PATIENCE + 1)  # the lease runs out with it, as for a worker that was paused
        assert engine.fence.acquire()
        until(bench, engine, lambda: bench.row(job).stale_since is not None, "stale")
        assert bench.row(job).state == "running"
        gate.set()
        until(bench, engine, is_in(bench, job, "succeeded"), "the end")
        assert bench.row(job).stale_since is None
    assert set(bench.world.launches.values()) == {1}


@pytest.mark.parametrize("error", [ComputeUnreachable("no answer"), KeyError("a bug of a library")])
def test_whatever_a_call_fails_with_it_is_looked_after(bench: Bench, error: Exception) -> None:
    compute = elsewhere(bench)
    job = bench.job()
    compute.failing[f"launch {job}"] = error
    with bench.engine(compute) as engine:
        until(bench, engine, is_in(bench, job, "succeeded"), "the end")
    assert set(bench.world.launches.values()) == {1}


def test_a_refused_launch_fails_the_job_in_words(bench: Bench) -> None:
    compute = elsewhere(bench)
    job = bench.job()
    compute.failing[f"launch {job}"] = Refused("There are no such GPUs.", hint="Ask for others.")
    with bench.engine(compute) as engine:
        until(bench, engine, is_in(bench, job, "failed"), "the refusal")
    assert bench.row(job).error_message == "There are no such GPUs. Ask for others."


def test_a_call_does_not_go_out_on_a_lease_that_ran_out(bench: Bench) -> None:
    compute = elsewhere(bench)
    with bench.engine(compute) as engine:
        backend = Backend(compute, bench.clock)
        engine.fence.renew()

        def work() -> None:
            bench.clock.move(1000)
            engine.fence.must_still_hold()
            compute.stop("never")

        came_to: list[Exception | None] = []
        backend.call("stop", "never", work, came_to.append)
        wait_for(lambda: (backend.collect(), came_to)[1], "the call")
        assert "ran out" in str(came_to[0])
    assert "stop never" not in compute.entered

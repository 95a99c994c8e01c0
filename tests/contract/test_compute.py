"""The contract of `compute.port.Compute`, over every backend."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ainfinity.compute.port import Compute
from ainfinity.core.exceptions import Refused
from ainfinity.domain.observation import Observation, Phase
from tests.contract.harness import HARNESSES, Harness

NAME = "ain-0a1b2c3d-abcdefghij-a1"
OTHER = "ain-0a1b2c3d-abcdefghij-a2"
#: Seconds; far more than anything takes, for a machine that is busy with other things.
PATIENCE = 60.0


@pytest.fixture(params=sorted(HARNESSES))
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    harness = HARNESSES[request.param](tmp_path)
    yield harness
    harness.close()


@pytest.fixture
def compute(harness: Harness) -> Compute:
    return harness.backend()


def until(harness: Harness, condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        harness.wait()


def see(harness: Harness, compute: Compute, name: str, fits: Callable[[Observation], bool]) -> Observation:
    """Wait until what is seen of the attempt fits."""
    found: list[Observation] = []

    def look() -> bool:
        seen = compute.observe_all().get(name)
        if seen is not None and fits(seen):
            found.append(seen)
        return bool(found)

    until(harness, look)
    return found[0]


def running(seen: Observation) -> bool:
    return seen.phase == Phase.RUNNING


def over(seen: Observation) -> bool:
    return not seen.machine


def see_end(harness: Harness, compute: Compute, name: str) -> Observation:
    """Wait until an attempt is over. A machine that stays when its job has ended is taken down, as the engine does."""
    seen = see(harness, compute, name, lambda seen: seen.phase in (Phase.EXITED, Phase.VANISHED))
    if seen.machine:
        compute.stop(name)
    return see(harness, compute, name, over)


def start(harness: Harness, compute: Compute, name: str = NAME) -> str:
    handle = compute.launch(harness.request(name))
    see(harness, compute, name, running)
    until(harness, lambda: harness.starts(name) == 1)
    return handle


def test_at_first_there_is_nothing(compute: Compute) -> None:
    assert compute.observe_all() == {}
    assert compute.name
    assert compute.lag >= 0
    capacity = compute.capacity()
    assert capacity is None or capacity >= 1


def test_what_is_launched_is_listed_within_the_lag_and_runs(harness: Harness, compute: Compute) -> None:
    handle = compute.launch(harness.request(NAME))
    if compute.lag == 0:
        assert NAME in compute.observe_all()
    seen = see(harness, compute, NAME, running)
    assert seen.name == NAME
    assert seen.machine
    assert seen.handle == handle != ""
    assert seen.exit_code is None
    until(harness, lambda: harness.alive(NAME) == 1)


def test_launching_a_name_twice_runs_it_once(harness: Harness, compute: Compute) -> None:
    handle = start(harness, compute)
    assert compute.launch(harness.request(NAME)) == handle
    assert harness.backend().launch(harness.request(NAME)) == handle
    for _ in range(20):
        harness.wait()
    assert harness.starts(NAME) == 1


def test_a_new_backend_sees_the_same(harness: Harness, compute: Compute) -> None:
    start(harness, compute)
    assert harness.backend().observe_all() == compute.observe_all()
    assert harness.backend().read_lines({NAME: 0}) == compute.read_lines({NAME: 0})


@pytest.mark.parametrize("code", [0, 1])
def test_an_exit_is_told_with_its_code_when_nothing_is_left(harness: Harness, compute: Compute, code: int) -> None:
    start(harness, compute)
    harness.finish(NAME, code)
    seen = see_end(harness, compute, NAME)
    assert (seen.phase, seen.exit_code) == (Phase.EXITED, code)
    assert harness.alive(NAME) == 0


def test_a_stop_ends_it_and_may_be_repeated(harness: Harness, compute: Compute) -> None:
    start(harness, compute)
    start(harness, compute, OTHER)
    compute.stop(NAME)
    harness.backend().stop(NAME)
    seen = see(harness, compute, NAME, over)
    assert harness.alive(NAME) == 0
    assert seen.phase == Phase.EXITED
    assert seen.reason == "stopped"
    compute.stop(NAME)
    assert compute.observe_all()[NAME] == seen
    assert harness.alive(OTHER) == 1
    assert running(compute.observe_all()[OTHER])


def test_a_stop_of_something_unknown_is_harmless(harness: Harness, compute: Compute) -> None:
    start(harness, compute)
    compute.stop(OTHER)
    compute.release(OTHER)
    assert set(compute.observe_all()) == {NAME}
    assert harness.alive(NAME) == 1


def test_what_goes_without_a_word_vanished(harness: Harness, compute: Compute) -> None:
    start(harness, compute)
    harness.vanish(NAME)
    seen = see_end(harness, compute, NAME)
    assert (seen.phase, seen.exit_code) == (Phase.VANISHED, None)
    assert harness.alive(NAME) == 0


def test_the_deadline_is_kept_without_a_call(harness: Harness, compute: Compute) -> None:
    compute.launch(harness.request(NAME, deadline_in=0.5))
    seen = see_end(harness, compute, NAME)
    assert (seen.phase, seen.reason) == (Phase.EXITED, "deadline")
    assert harness.alive(NAME) == 0


def test_an_extended_attempt_outlives_its_first_deadline(harness: Harness, compute: Compute) -> None:
    compute.launch(harness.request(NAME, deadline_in=3))
    compute.extend(NAME, None)
    compute.launch(harness.request(OTHER, deadline_in=3))
    seen = see_end(harness, compute, OTHER)
    assert (seen.phase, seen.reason) == (Phase.EXITED, "deadline")
    see(harness, compute, NAME, running)
    assert harness.alive(NAME) == 1
    harness.backend().extend(NAME, 1.0)
    seen = see_end(harness, compute, NAME)
    assert (seen.phase, seen.reason) == (Phase.EXITED, "deadline")
    assert harness.alive(NAME) == 0


def test_what_does_not_run_cannot_be_extended(harness: Harness, compute: Compute) -> None:
    with pytest.raises(Refused):
        compute.extend(OTHER, None)
    start(harness, compute)
    harness.finish(NAME, 0)
    see_end(harness, compute, NAME)
    with pytest.raises(Refused):
        compute.extend(NAME, None)


def test_lines_come_whole_once_and_from_any_offset(harness: Harness, compute: Compute) -> None:
    start(harness, compute)
    until(harness, lambda: bool(compute.read_lines({NAME: 0})[NAME].lines))
    harness.finish(NAME, 0)
    see_end(harness, compute, NAME)
    everything = compute.read_lines({NAME: 0})[NAME]
    assert len(everything.lines) >= 1
    assert not any("\n" in line for line in everything.lines)
    assert everything.offset == sum(len(line.encode()) + 1 for line in everything.lines)
    again = compute.read_lines({NAME: everything.offset})[NAME]
    assert (list(again.lines), again.offset) == ([], everything.offset)
    first = len(everything.lines[0].encode()) + 1
    rest = compute.read_lines({NAME: first})[NAME]
    assert (list(rest.lines), rest.offset) == (list(everything.lines[1:]), everything.offset)


def test_what_has_no_output_has_no_lines(compute: Compute) -> None:
    found = compute.read_lines({NAME: 0, OTHER: 7})
    assert {name: (list(new.lines), new.offset) for name, new in found.items()} == {NAME: ([], 0), OTHER: ([], 7)}
    assert compute.read_lines({}) == {}


def test_an_export_is_believed_after_a_look(harness: Harness, compute: Compute) -> None:
    start(harness, compute)
    assert compute.verify(NAME, harness.export(NAME, damaged=False)) == ""
    assert compute.verify(NAME, harness.export(NAME, damaged=True)) != ""


def test_what_is_released_is_forgotten_and_its_log_stays(harness: Harness, compute: Compute) -> None:
    start(harness, compute)
    start(harness, compute, OTHER)
    harness.finish(NAME, 0)
    see_end(harness, compute, NAME)
    lines = compute.read_lines({NAME: 0})
    compute.release(NAME)
    compute.release(NAME)
    assert set(compute.observe_all()) == {OTHER}
    assert set(harness.backend().observe_all()) == {OTHER}
    assert compute.read_lines({NAME: 0}) == lines

"""How attempts end, and how that is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from ainfinity.compute.remote.rows import SkyRefused
from ainfinity.core.exceptions import ComputeUnreachable
from ainfinity.domain.observation import Phase
from tests.compute.remote.fake_sky import FakeCluster
from tests.compute.remote.place import RemotePlace
from tests.compute.remote.sights import ended, gone, running, see

NAME = "ain-0a1b2c3d-abcdefghij-a1"
OTHER = "ain-0a1b2c3d-abcdefghij-a2"


@pytest.fixture
def place(tmp_path: Path) -> RemotePlace:
    return RemotePlace(tmp_path)


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.35, 5.0])
def test_a_stop_at_any_phase_leaves_nothing(place: RemotePlace, seconds: float) -> None:
    """Under way at the API server, in provisioning, in setup, running."""
    compute = place.backend()
    compute.launch(place.request(NAME))
    place.clock.at += seconds
    compute.observe_all()
    compute.stop(NAME)
    seen = see(place, compute, gone)
    assert (seen.phase, seen.reason) == (Phase.EXITED, "stopped")
    place.clock.at += 100
    assert (place.sky.alive(NAME), place.sky.machines) == (0, {})
    assert compute.observe_all()[NAME] == seen


def test_a_stop_while_the_launch_is_on_its_way_to_the_server_leaves_nothing(place: RemotePlace) -> None:
    """The engine cancels on another thread, before the launch's call has returned."""
    compute = place.backend()
    place.sky.before["launch"] = lambda: compute.stop(NAME)
    compute.launch(place.request(NAME))
    see(place, compute, gone)
    place.clock.at += 100
    assert (place.sky.alive(NAME), place.sky.machines, place.sky.started[NAME]) == (0, {}, 0)


def test_a_stop_is_not_over_while_a_launch_is_under_way(place: RemotePlace) -> None:
    """A launch that the server did not give up would make the cluster after it was taken down."""
    place.sky.provision = 5.0
    compute = place.backend()
    compute.launch(place.request(NAME))
    request = place.sky.asked["r1"]
    compute.stop(NAME)
    request.status = "RUNNING"
    place.clock.at += 1.0
    assert compute.observe_all()[NAME].machine
    compute.stop(NAME)
    see(place, compute, gone)
    assert place.sky.machines == {}


def test_what_is_stopped_is_never_launched(place: RemotePlace) -> None:
    compute = place.backend()
    compute.launch(place.request(NAME))
    compute.stop(NAME)
    with pytest.raises(SkyRefused):
        compute.launch(place.request(NAME))
    assert place.sky.calls["launch"] == 1


def test_without_an_answer_a_stop_is_asked_for_again(place: RemotePlace) -> None:
    compute = place.backend()
    compute.launch(place.request(NAME))
    see(place, compute, running)
    place.sky.is_down = True
    with pytest.raises(ComputeUnreachable):
        compute.stop(NAME)
    with pytest.raises(ComputeUnreachable):
        compute.observe_all()
    place.sky.is_down = False
    assert compute.observe_all()[NAME].machine
    compute.stop(NAME)
    see(place, compute, gone)


def test_the_end_of_a_job_is_still_told_when_its_cluster_is_gone(place: RemotePlace) -> None:
    compute = place.backend()
    compute.launch(place.request(NAME))
    see(place, compute, running)
    place.sky.job_of(NAME).end = "SUCCEEDED"
    seen = see(place, compute, ended)
    assert (seen.exit_code, seen.machine) == (0, True)
    place.sky.down(NAME)
    later = place.backend()
    seen = see(place, later, gone)
    assert (seen.phase, seen.exit_code) == (Phase.EXITED, 0)


def test_a_setup_that_failed_says_so(place: RemotePlace) -> None:
    compute = place.backend()
    compute.launch(place.request(NAME))
    see(place, compute, running)
    place.sky.job_of(NAME).end = "FAILED_SETUP"
    seen = see(place, compute, ended)
    assert (seen.code, seen.exit_code) == ("setup_failed", 1)
    assert "setup" in seen.reason.lower()


def test_one_look_that_misses_a_cluster_is_not_believed(place: RemotePlace) -> None:
    compute = place.backend()
    compute.launch(place.request(NAME))
    see(place, compute, running)
    machine = place.sky.machines.pop(NAME)
    seen = compute.observe_all()[NAME]
    assert (seen.phase, seen.machine) == (Phase.RUNNING, True)
    place.sky.machines[NAME] = machine
    place.clock.at += 60
    assert running(compute.observe_all()[NAME])


def test_a_cluster_that_stays_broken_is_lost_and_must_be_taken_down(place: RemotePlace) -> None:
    compute = place.backend()
    compute.launch(place.request(NAME))
    see(place, compute, running)
    machine: FakeCluster = place.sky.machines[NAME]
    machine.status, machine.unhealthy = "INIT", True
    place.clock.at += 5
    seen = compute.observe_all()[NAME]
    assert (seen.phase, seen.machine) == (Phase.RUNNING, True), "a moment's trouble is no loss"
    seen = see(place, compute, ended)
    assert (seen.phase, seen.machine) == (Phase.VANISHED, True)
    compute.stop(NAME)
    see(place, compute, gone)
    assert place.sky.machines == {}


def test_the_clouds_are_asked_now_and_then_about_our_machines(place: RemotePlace) -> None:
    compute = place.backend()
    compute.launch(place.request(NAME))
    see(place, compute, running)
    before = place.sky.calls["refresh"]
    for _ in range(120):
        place.clock.at += 1.0
        compute.observe_all()
    assert 3 <= place.sky.calls["refresh"] - before <= 5


def test_a_cluster_attempt_that_runs_takes_one_request_a_look(place: RemotePlace) -> None:
    compute = place.backend()
    compute.launch(place.request(NAME))
    see(place, compute, running)
    place.clock.at += 1
    compute.observe_all()
    place.sky.calls.clear()
    for _ in range(10):
        place.clock.at += 1.0
        compute.observe_all()
    assert place.sky.calls["clusters"] == 10
    assert sum(place.sky.calls.values()) <= 12


def test_until_a_job_is_live_skypilot_is_not_asked(place: RemotePlace) -> None:
    assert place.backend(lambda: False).observe_all() == {}
    assert sum(place.sky.calls.values()) == 0
    place.backend(lambda: True).observe_all()  # the control
    assert place.sky.calls["clusters"] == 1

"""Managed jobs: recoveries, ends, and thousands of them."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest

from ainfinity.compute.remote.compute import SkyPilotCompute
from ainfinity.compute.remote.record import Record, Records
from ainfinity.core.exceptions import ComputeUnreachable
from ainfinity.domain.observation import Phase
from tests.compute.remote.fake_sky import FakeCluster, FakeManaged, FakeRequest
from tests.compute.remote.place import RemotePlace
from tests.compute.remote.sights import Crash, crash, ended, gone, running, see

NAME = "ain-0a1b2c3d-abcdefghij-a1"
OTHER = "ain-0a1b2c3d-abcdefghij-a2"


@pytest.fixture
def place(tmp_path: Path) -> RemotePlace:
    return RemotePlace(tmp_path)


def launch_managed(place: RemotePlace) -> tuple[SkyPilotCompute, FakeManaged]:
    compute = place.backend()
    compute.launch(place.request(NAME, mode="managed", storage="/shared"))
    see(place, compute, lambda seen: bool(seen.given))
    (job,) = place.sky.jobs.values()
    return compute, job


def test_a_recovery_is_told_and_is_no_failure(place: RemotePlace) -> None:
    compute, job = launch_managed(place)
    job.status = "RUNNING"
    see(place, compute, running)
    job.status, job.recoveries = "RECOVERING", 1
    seen = see(place, compute, lambda seen: seen.phase == Phase.RECOVERING)
    assert (seen.machine, seen.recoveries, seen.exit_code) == (True, 1, None)
    job.status = "RUNNING"
    assert see(place, compute, running).recoveries == 1


@pytest.mark.parametrize(
    ("status", "phase", "code", "exit_code"),
    [
        ("SUCCEEDED", Phase.EXITED, "", 0),
        ("FAILED", Phase.EXITED, "", 1),
        ("FAILED_SETUP", Phase.EXITED, "setup_failed", 1),
        ("FAILED_NO_RESOURCE", Phase.EXITED, "no_resources", 1),
        ("FAILED_PRECHECKS", Phase.EXITED, "prechecks_failed", 1),
    ],
)
def test_a_managed_job_is_over_only_when_its_controller_is_through(
    place: RemotePlace, status: str, phase: Phase, code: str, exit_code: int | None
) -> None:
    compute, job = launch_managed(place)
    job.status, job.reason = status, "said SkyPilot"
    seen = see(place, compute, ended)
    assert (seen.phase, seen.machine, seen.code, seen.exit_code) == (phase, True, code, exit_code)
    if code:
        assert seen.reason.endswith("said SkyPilot")
    job.done = True
    seen = see(place, compute, gone)
    assert (seen.phase, seen.exit_code) == (phase, exit_code)


def test_the_cluster_of_a_job_whose_controller_failed_is_taken_down_by_us(place: RemotePlace) -> None:
    """Nobody else does: its controller is through with it all the same."""
    compute, job = launch_managed(place)
    left = f"{NAME[:20]}-{job.id}"
    place.sky.machines[left] = FakeCluster(left, "UP")
    job.status, job.done = "FAILED_CONTROLLER", True
    seen = see(place, compute, ended)
    assert (seen.phase, seen.machine) == (Phase.VANISHED, True)
    compute.stop(NAME)
    see(place, compute, gone)
    assert left not in place.sky.machines


def test_a_stop_cancels_a_managed_job_once_and_is_over_when_confirmed(place: RemotePlace) -> None:
    compute, job = launch_managed(place)
    job.status = "RUNNING"
    for _ in range(3):
        compute.stop(NAME)
    assert (job.status, place.sky.calls["cancel_managed"]) == ("CANCELLING", 1)
    assert compute.observe_all()[NAME].machine
    job.status = "CANCELLED"
    place.clock.at += 60
    assert compute.observe_all()[NAME].machine, "its cluster may still be there"
    job.done = True
    seen = see(place, compute, gone)
    assert (seen.phase, seen.reason) == (Phase.EXITED, "stopped")


def test_a_managed_launch_that_may_be_on_its_way_is_waited_for(place: RemotePlace) -> None:
    """A request for a managed job does not tell its name, so after a lost reply nobody knows whose it is."""
    place.sky.after["launch"] = crash
    request = place.request(NAME, mode="managed", storage="/shared")
    with pytest.raises(Crash):
        place.backend().launch(request)
    with pytest.raises(ComputeUnreachable, match="on its way"):
        place.backend().launch(request)
    place.clock.at += 1.0
    later = place.backend()
    assert later.launch(request) == f"managed:{NAME}"
    assert (place.sky.started[NAME], place.sky.calls["launch"]) == (1, 1)


def test_launches_of_others_hold_up_none(place: RemotePlace) -> None:
    place.sky.asked["r0"] = FakeRequest("r0", "jobs.launch", "of-another-user", place.clock.now())
    compute = place.backend()
    for name in (NAME, OTHER):
        compute.launch(place.request(name, mode="managed", storage="/shared"))
    assert place.sky.calls["launch"] == 2


def test_of_another_attempt_a_job_with_a_longer_name_is_not_ours(place: RemotePlace) -> None:
    place.sky.jobs[1] = FakeManaged(1, f"{NAME}0", "RUNNING")
    compute = place.backend()
    compute.launch(place.request(NAME, mode="managed", storage="/shared"))
    compute.observe_all()
    compute.stop(NAME)
    assert place.sky.jobs[1].status == "RUNNING"


def test_two_thousand_managed_jobs_take_as_many_requests_as_one(
    place: RemotePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"ain-0a1b2c3d-{number:010d}-a1" for number in range(2000)]
    records = {name: Record(name, "managed", job_id=number, seen=True) for number, name in enumerate(names, 1)}
    place.sky.jobs = {number: FakeManaged(number, name, "RUNNING") for number, name in enumerate(names, 1)}

    def keep_nothing(self: Records, record: Record, *, durably: bool = False) -> None:
        """Thousands of files would only take time."""

    monkeypatch.setattr(Records, "read_all", Mock(return_value=records))
    monkeypatch.setattr(Records, "write", keep_nothing)
    compute = place.backend()
    for _ in range(3):
        compute.observe_all()  # notes what is new of each
        place.clock.at += 10.0
    place.sky.calls.clear()
    found = compute.observe_all()
    assert len(found) == 2000
    assert all(running(seen) for seen in found.values())
    assert place.sky.calls == {"clusters": 1, "managed_jobs": 1}

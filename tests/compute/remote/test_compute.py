"""SkyPilot's backend over a fake of SkyPilot: exactly once whatever dies, confirmed ends, causes in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from ainfinity.compute.remote.compute import SkyPilotCompute
from ainfinity.compute.remote.record import Record, Records
from ainfinity.compute.remote.rows import SkyRefused
from ainfinity.core.exceptions import ComputeUnreachable, FolderUnwritable
from ainfinity.domain.observation import Observation, Phase
from tests.compute.remote.fake_sky import FakeCluster, FakeManaged, FakeRequest
from tests.compute.remote.place import RemotePlace

NAME = "ain-0a1b2c3d-abcdefghij-a1"
OTHER = "ain-0a1b2c3d-abcdefghij-a2"


@pytest.fixture
def place(tmp_path: Path) -> RemotePlace:
    return RemotePlace(tmp_path)


def see(
    place: RemotePlace, compute: SkyPilotCompute, fits: Callable[[Observation], bool], name: str = NAME
) -> Observation:
    """Look, a little later each time, until what is seen fits; the clock's hours bound it."""
    for _ in range(2000):
        seen = compute.observe_all().get(name)
        if seen is not None and fits(seen):
            return seen
        place.clock.at += 0.25
    raise AssertionError(f"never seen; last: {compute.observe_all().get(name)}")


def running(seen: Observation) -> bool:
    return seen.phase == Phase.RUNNING


def ended(seen: Observation) -> bool:
    return seen.phase in (Phase.EXITED, Phase.VANISHED)


def gone(seen: Observation) -> bool:
    return not seen.machine


class Crash(BaseException):
    """The worker is killed with -9."""


def crash() -> None:
    raise Crash


# Launching.


def test_a_launch_is_handed_over_and_not_waited_for(place: RemotePlace) -> None:
    place.sky.provision = 900.0
    compute = place.backend()
    assert compute.launch(place.request(NAME)) == f"cluster:{NAME}"
    seen = compute.observe_all()[NAME]
    assert (seen.phase, seen.machine) == (Phase.PENDING, True)
    assert place.sky.calls["result"] == 0, "nothing waits for a launch that is under way"


def test_secrets_are_sent_and_never_written(place: RemotePlace) -> None:
    compute = place.backend()
    compute.launch(place.request(NAME))
    see(place, compute, running)
    assert place.sky.secrets[NAME] == {"TOKEN": "s3cret-value"}
    kept = [path.read_text() for path in place.settings.attempts_dir.rglob("*") if path.is_file()]
    assert kept
    assert not any("s3cret-value" in text for text in kept)


def test_price_and_what_was_given_are_told(place: RemotePlace) -> None:
    compute = place.backend()
    compute.launch(place.request(NAME))
    see(place, compute, running)
    seen = see(place, compute, lambda seen: seen.price_per_hour is not None)
    assert (seen.price_per_hour, seen.given) == (2.5, "1x H100:1 slurm/fake")
    assert seen.launched_at is not None


@pytest.mark.parametrize("step", ["before the call", "after the call", "after the record"])
def test_a_worker_killed_at_any_step_of_a_launch_runs_it_once(place: RemotePlace, step: str) -> None:
    """The next worker calls launch again, as the engine does for an intent without a handle, or finds it launched."""
    compute = place.backend()
    if step == "before the call":
        place.sky.before["launch"] = crash
    elif step == "after the call":
        place.sky.after["launch"] = crash
    if step == "after the record":
        compute.launch(place.request(NAME))
    else:
        with pytest.raises(Crash):
            compute.launch(place.request(NAME))
    later = place.backend()
    for _ in range(20):
        if NAME not in later.observe_all():
            assert later.launch(place.request(NAME)) == f"cluster:{NAME}"
        place.clock.at += 1.0
    see(place, later, running)
    assert (place.sky.started[NAME], place.sky.alive(NAME)) == (1, 1)


def test_what_never_reached_skypilot_is_not_listed(place: RemotePlace) -> None:
    place.sky.before["launch"] = crash
    with pytest.raises(Crash):
        place.backend().launch(place.request(NAME))
    assert place.backend().observe_all() == {}


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.5, 30.0])
def test_a_lost_reply_is_no_second_launch(place: RemotePlace, seconds: float) -> None:
    """The request was taken, its reply was not: it is found by the cluster's name."""

    def lose() -> None:
        raise ComputeUnreachable("Read timed out.")

    place.sky.after["launch"] = lose
    compute = place.backend()
    with pytest.raises(ComputeUnreachable):
        compute.launch(place.request(NAME))
    place.clock.at += seconds
    see(place, compute, running)
    for _ in range(100):
        place.clock.at += 1.0
        compute.observe_all()
    assert (place.sky.started[NAME], place.sky.calls["launch"]) == (1, 1)


@pytest.mark.parametrize("seconds", [0.1, 0.29])
def test_an_api_server_killed_in_mid_launch_is_gone_on_with_under_the_same_name(
    place: RemotePlace, seconds: float
) -> None:
    compute = place.backend()
    compute.launch(place.request(NAME))
    compute.observe_all()
    place.clock.at += seconds
    compute.observe_all()
    place.sky.kill()
    seen = see(place, compute, running)
    assert seen.handle == f"cluster:{NAME}"
    assert (place.sky.started[NAME], place.sky.alive(NAME), len(place.sky.machines)) == (1, 1, 1)


def test_an_api_server_killed_after_the_job_was_handed_over_adds_no_job(place: RemotePlace) -> None:
    compute = place.backend()
    compute.launch(place.request(NAME))
    place.clock.at += 1.0
    place.sky.kill()  # the request is forgotten, its cluster is up with its job
    see(place, compute, running)
    assert (place.sky.started[NAME], place.sky.calls["launch"]) == (1, 1)


def test_an_api_server_and_a_worker_killed_together_lose_the_launch_but_double_nothing(place: RemotePlace) -> None:
    """Only the dead worker had the secrets, so the attempt is over; its cluster is known and taken down."""
    place.sky.provision = 60.0
    compute = place.backend()
    compute.launch(place.request(NAME))
    compute.observe_all()
    place.sky.kill()
    later = place.backend()
    seen = see(place, later, ended)
    assert (seen.phase, seen.machine) == (Phase.VANISHED, True)
    assert "API server" in seen.reason
    later.stop(NAME)
    see(place, later, gone)
    assert (place.sky.machines, place.sky.started[NAME]) == ({}, 0)


def test_a_lost_record_is_found_again_by_name(place: RemotePlace) -> None:
    compute = place.backend()
    compute.launch(place.request(NAME))
    see(place, compute, running)
    (place.settings.attempts_dir / NAME / "remote.json").unlink()
    later = place.backend()
    found = later.observe_all()[NAME]
    assert (found.machine, found.handle) == (True, f"cluster:{NAME}")
    later.read_lines({NAME: 0})  # the engine adopts it, and reads it
    see(place, later, running)
    assert later.launch(place.request(NAME)) == f"cluster:{NAME}"
    assert place.sky.started[NAME] == 1


def test_a_damaged_record_is_a_lost_one(place: RemotePlace) -> None:
    compute = place.backend()
    compute.launch(place.request(NAME))
    see(place, compute, running)
    (place.settings.attempts_dir / NAME / "remote.json").write_text('{"name": 3')
    assert place.backend().observe_all()[NAME].machine


def test_a_refused_task_leaves_nothing(place: RemotePlace) -> None:
    place.sky.refusal = SkyRefused("No field bogus.", hint="Remove it.", kind="bad_task")
    compute = place.backend()
    with pytest.raises(SkyRefused):
        compute.launch(place.request(NAME))
    assert compute.observe_all() == {}
    assert place.backend().observe_all() == {}


def test_a_launch_that_fails_later_ends_with_its_cause(place: RemotePlace) -> None:
    place.sky.launch_fault = SkyRefused("No H100 is to be had.", hint="See `ainfinity gpus`.", kind="no_resources")
    compute = place.backend()
    compute.launch(place.request(NAME))
    seen = see(place, compute, ended)
    assert (seen.phase, seen.machine, seen.code) == (Phase.EXITED, False, "no_resources")
    assert seen.reason == "No H100 is to be had. See `ainfinity gpus`."


def test_nothing_is_launched_without_a_record(place: RemotePlace) -> None:
    place.settings.attempts_dir.parent.mkdir(parents=True, exist_ok=True)
    place.settings.attempts_dir.write_text("a file is in the way")
    with pytest.raises(FolderUnwritable):
        place.backend().launch(place.request(NAME))
    assert place.sky.calls["launch"] == 0


# Modes.


def test_auto_is_managed_only_where_the_model_outlives_its_machine_and_a_controller_runs(place: RemotePlace) -> None:
    compute = place.backend()
    assert compute.launch(place.request(NAME, mode="auto")) == f"cluster:{NAME}"
    assert compute.launch(place.request(OTHER, mode="auto", storage="/shared")) == f"managed:{OTHER}"
    assert compute.launch(place.raw(NAME[:-1] + "3")).startswith("managed:")
    place.sky.manages = False
    assert compute.launch(place.raw(NAME[:-1] + "4")).startswith("cluster:")


def test_a_managed_recipe_without_storage_is_refused_by_name(place: RemotePlace) -> None:
    with pytest.raises(SkyRefused, match=r"resources\.mode.*resources\.storage"):
        place.backend().launch(place.request(NAME, mode="managed"))


# Managed jobs.


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


# Ends.


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

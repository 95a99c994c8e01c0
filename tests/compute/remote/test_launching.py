"""How SkyPilot's backend launches: once, whatever dies in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from ainfinity.compute.remote.rows import SkyRefused
from ainfinity.core.exceptions import ComputeUnreachable, FolderUnwritable
from ainfinity.domain.observation import Phase
from tests.compute.remote.place import RemotePlace
from tests.compute.remote.sights import Crash, crash, ended, gone, running, see

NAME = "ain-0a1b2c3d-abcdefghij-a1"
OTHER = "ain-0a1b2c3d-abcdefghij-a2"


@pytest.fixture
def place(tmp_path: Path) -> RemotePlace:
    return RemotePlace(tmp_path)


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

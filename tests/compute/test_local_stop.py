"""A stop ends everything of an attempt, politely first, and nothing else; an end is told only when nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ainfinity.compute.folder import AttemptFolder
from ainfinity.compute.processes import identify
from ainfinity.core.exceptions import ComputeUnreachable, WrongState
from ainfinity.domain.observation import Phase
from tests.compute.place import NAME, Place, is_alive, wait_for


def test_a_stop_ends_ranks_in_sessions_of_their_own(place: Place) -> None:
    compute = place.backend()
    compute.launch(place.request(recipe={"ranks": 2}))
    place.started()
    assert len({os.getsid(pid) for pid in place.alive()}) == 3
    compute.stop(NAME)
    compute.stop(NAME)
    seen = place.until_over(compute)
    assert (seen.phase, seen.exit_code, seen.reason) == (Phase.EXITED, 1, "stopped")
    assert place.alive() == []
    assert place.notes("signals").count("main") == 1
    compute.stop(NAME)
    assert place.see(compute) == seen


def test_control_killing_the_group_leaves_the_ranks(place: Place) -> None:
    compute = place.backend()
    compute.launch(place.request(recipe={"ranks": 2}))
    place.started()
    main = int(place.notes("starts")[0])
    os.kill(place.supervisor(), signal.SIGKILL)
    os.killpg(os.getpgid(main), signal.SIGKILL)
    wait_for(lambda: not is_alive(main))
    assert len(place.alive()) == 2
    seen = place.until(compute, Phase.VANISHED)
    assert seen.machine


def test_each_rank_is_told_once_when_the_launcher_hands_the_signal_on(place: Place) -> None:
    """A rank that gets a second SIGTERM exits without saving; torchrun sends it one."""
    place.grace = 20.0
    compute = place.backend()
    compute.launch(place.request(recipe={"ranks": 2, "forward": True, "saving": 0.3}))
    place.started()
    compute.stop(NAME)
    place.until_over(compute)
    assert sorted(place.notes("signals")) == ["main", "rank0", "rank1"]


def test_control_telling_everyone_tells_ranks_twice(place: Place) -> None:
    compute = place.backend()
    compute.launch(place.request(recipe={"ranks": 1, "forward": True, "saving": 0.5}))
    place.started()
    main = int(place.notes("starts")[0])
    (rank,) = set(place.alive()) - {main}
    os.kill(rank, signal.SIGTERM)
    wait_for(lambda: place.notes("signals"))
    os.kill(main, signal.SIGTERM)
    place.until_over(compute)
    assert sorted(place.notes("signals")) == ["main", "rank0", "rank0"]


def test_a_launcher_that_forgets_its_ranks_has_them_told(place: Place) -> None:
    compute = place.backend()
    compute.launch(place.request(recipe={"ranks": 2, "leave": True, "exit": 5}))
    seen = place.until_over(compute)
    assert (seen.phase, seen.exit_code, seen.reason) == (Phase.EXITED, 5, "")
    assert sorted(place.notes("signals")) == ["rank0", "rank1"]
    assert place.alive() == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere orphans without the mark cannot be found")
def test_orphans_without_the_mark_are_ended_too(place: Place) -> None:
    compute = place.backend()
    compute.launch(place.request(recipe={"ranks": 2, "leave": True, "bare": True}))
    place.until_over(compute)
    assert sorted(place.notes("signals")) == ["rank0", "rank1"]
    assert place.alive() == []


def test_who_ignores_the_request_is_killed_after_the_grace(place: Place) -> None:
    place.grace = 0.4
    compute = place.backend()
    compute.launch(place.request(recipe={"ranks": 1, "stubborn": True}))
    place.started()
    asked = time.monotonic()
    compute.stop(NAME)
    assert time.monotonic() - asked < 0.3, "a stop does not wait"
    wait_for(lambda: "main" in place.notes("signals"))
    assert len(place.alive()) == 2
    seen = place.until_over(compute)
    assert time.monotonic() - asked >= 0.4
    assert (seen.exit_code, seen.reason) == (137, "stopped")
    assert place.alive() == []


def test_a_signal_from_outside_is_told_from_a_stop(place: Place) -> None:
    compute = place.backend()
    compute.launch(place.request())
    place.started()
    os.kill(place.supervisor(), signal.SIGHUP)
    os.kill(place.supervisor(), signal.SIGTERM)
    assert place.until_over(compute).reason == "terminated"


def test_a_log_out_does_not_end_the_attempt(place: Place) -> None:
    compute = place.backend()
    compute.launch(place.request())
    place.started()
    os.kill(place.supervisor(), signal.SIGHUP)
    os.kill(place.supervisor(), signal.SIGINT)
    place.finish()
    seen = place.until_over(compute)
    assert (seen.exit_code, seen.reason) == (0, "")


def test_a_killed_supervisor_vanishes_and_its_ranks_can_be_ended(place: Place) -> None:
    compute = place.backend()
    compute.launch(place.request(recipe={"ranks": 2, "forward": True}))
    place.started()
    os.kill(place.supervisor(), signal.SIGKILL)
    seen = place.until(compute, Phase.VANISHED)
    assert (seen.machine, seen.exit_code) == (True, None)
    assert len(place.alive()) == 3
    (place.control() / "say").write_text("still here\n")
    wait_for(lambda: compute.read_lines({NAME: 0})[NAME].lines == ("still here",))
    with pytest.raises(WrongState):
        compute.release(NAME)
    compute.stop(NAME)
    place.backend().stop(NAME)
    wait_for(lambda: not place.alive())
    assert sorted(place.notes("signals")) == ["main", "rank0", "rank1"], "each was told once, over two workers"
    seen = place.see(compute)
    assert seen is not None
    assert (seen.phase, seen.machine) == (Phase.VANISHED, False)


def test_stubborn_ranks_of_a_killed_supervisor_are_killed_after_the_grace(place: Place) -> None:
    compute = place.backend()
    compute.launch(place.request(recipe={"ranks": 2, "stubborn": True}))
    place.started()
    os.kill(place.supervisor(), signal.SIGKILL)
    place.until(compute, Phase.VANISHED)
    compute.stop(NAME)
    wait_for(lambda: place.notes("signals"))
    assert len(place.alive()) == 3
    place.clock.ahead += place.grace
    compute.stop(NAME)
    wait_for(lambda: not place.alive())


def test_a_supervisor_that_does_nothing_is_killed_with_all_its_own(place: Place) -> None:
    compute = place.backend()
    compute.launch(place.request(recipe={"ranks": 2, "bare": True}))
    place.started()
    os.kill(place.supervisor(), signal.SIGSTOP)
    compute.stop(NAME)
    compute.stop(NAME)
    assert is_alive(place.supervisor())
    assert len(place.alive()) == 3
    place.clock.ahead += place.grace + 6
    compute.stop(NAME)
    wait_for(lambda: not place.alive())
    seen = place.until(compute, Phase.VANISHED)
    assert not seen.machine


def test_the_deadline_is_kept_without_any_worker(place: Place) -> None:
    place.grace = 0.3
    request = place.request(recipe={"ranks": 1, "stubborn": True}, deadline=time.time() + 0.8)
    place.backend().launch(request)
    wait_for(lambda: (place.folder() / "exit.json").exists())
    seen = place.see(place.backend())
    assert seen is not None
    assert (seen.phase, seen.reason, seen.exit_code) == (Phase.EXITED, "deadline", 137)
    assert request.deadline is not None
    assert time.time() >= request.deadline + place.grace
    assert place.alive() == []


@pytest.fixture
def stranger(place: Place) -> Iterator[subprocess.Popen[bytes]]:
    """A process of somebody else's that got the pid of a supervisor that is gone."""
    other = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    place.names.add(NAME)
    time.sleep(0.03)  # Start times are told in steps of 10 ms; no pid comes back that soon.
    yield other
    other.kill()
    other.wait()


def claim_of_the_past(place: Place, **changes: object) -> Path:
    """An attempt that ran and whose claim names what `changes` say."""
    compute = place.backend()
    compute.launch(place.request())
    place.started()
    claim = place.folder() / "claim.json"
    os.kill(place.supervisor(), signal.SIGKILL)
    for pid in place.alive():
        os.kill(pid, signal.SIGKILL)
    place.until(compute, Phase.VANISHED)
    wait_for(lambda: not place.alive())
    claim.write_text(json.dumps(json.loads(claim.read_text()) | changes))
    return claim


def test_a_reused_pid_is_not_taken_for_the_supervisor(place: Place, stranger: subprocess.Popen[bytes]) -> None:
    claim_of_the_past(place, pid=stranger.pid)
    compute = place.backend()
    seen = place.see(compute)
    assert seen is not None
    assert (seen.phase, seen.machine) == (Phase.VANISHED, False)
    for _ in range(2):
        compute.stop(NAME)
        place.clock.ahead += 100
    time.sleep(0.05)
    assert stranger.poll() is None
    compute.launch(place.request())
    assert len(place.notes("starts")) == 1


def test_control_the_same_start_time_is_the_supervisor(place: Place, stranger: subprocess.Popen[bytes]) -> None:
    identity = identify(stranger.pid)
    assert identity is not None
    claim_of_the_past(place, pid=stranger.pid, start=identity.start)
    seen = place.see(place.backend())
    assert seen is not None
    assert seen.phase == Phase.RUNNING
    place.backend().stop(NAME)
    wait_for(lambda: stranger.poll() is not None)


def test_after_a_reboot_it_vanished(place: Place, stranger: subprocess.Popen[bytes]) -> None:
    identity = identify(stranger.pid)
    assert identity is not None
    ticks = identity.start.partition(":")[2]
    claim_of_the_past(place, pid=stranger.pid, start=f"another-boot:{ticks}")
    seen = place.see(place.backend())
    assert seen is not None
    assert (seen.phase, seen.machine) == (Phase.VANISHED, False)


@pytest.mark.skipif(not Path("/etc/machine-id").exists(), reason="this system does not name its machine")
def test_what_another_machine_runs_is_left_to_it(place: Place) -> None:
    """Two machines may share a home folder: out of sight is not gone."""
    claim_of_the_past(place, machine="another", host="login2")
    compute = place.backend()
    seen = place.see(compute)
    assert seen is not None
    assert (seen.phase, seen.machine) == (Phase.RUNNING, True)
    assert "login2" in seen.reason
    with pytest.raises(ComputeUnreachable, match="login2"):
        compute.stop(NAME)


def test_a_stop_that_races_the_start_wins_or_ends_it(place: Place) -> None:
    for attempt in range(8):
        name = f"race-{attempt}"
        compute = place.backend()
        compute.launch(place.request(name))
        time.sleep(attempt * 0.012)
        compute.stop(name)
        seen = place.until_over(compute, name)
        assert seen.phase == Phase.EXITED
        assert seen.reason in ("stopped", "stopped before it began")
        assert place.alive(name) == []


def test_release_takes_it_off_the_list_and_keeps_the_folder(place: Place) -> None:
    compute = place.backend()
    compute.launch(place.request(recipe={"lines": ["one"]}))
    place.started()
    with pytest.raises(WrongState, match="still runs"):
        compute.release(NAME)
    place.finish()
    place.until_over(compute)
    compute.release(NAME)
    compute.release(NAME)
    assert compute.observe_all() == {}
    assert compute.read_lines({NAME: 0})[NAME].lines == ("one",)
    assert AttemptFolder(place.folder()).exit.exists()


def test_the_dead_supervisor_of_a_live_worker_is_no_zombie_for_long(place: Place) -> None:
    compute = place.backend()
    compute.launch(place.request())
    place.started()
    supervisor = place.supervisor()
    place.finish()
    place.until_over(compute)
    wait_for(lambda: compute.observe_all() and not psutil.pid_exists(supervisor))


def test_two_attempts_are_ended_apart(place: Place) -> None:
    compute = place.backend()
    for name in ("one", "one-two"):
        compute.launch(place.request(name, recipe={"ranks": 1}))
        place.started(name)
    compute.stop("one")
    place.until_over(compute, "one")
    assert len(place.alive("one-two")) == 2
    seen = compute.observe_all()["one-two"]
    assert seen.phase == Phase.RUNNING


def test_an_attempt_of_the_same_name_elsewhere_is_left_alone(place: Place) -> None:
    """Data folders get copied, and tests run side by side."""
    elsewhere = Place(place.root / "elsewhere")
    try:
        for one in (place, elsewhere):
            one.backend().launch(one.request())
            one.started()
        place.backend().stop(NAME)
        place.until_over(place.backend())
        assert len(elsewhere.alive()) == 1
        assert elsewhere.notes("signals") == []
    finally:
        elsewhere.clear()

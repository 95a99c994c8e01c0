"""What plain SkyPilot started, seen under its origin's name; and what bears our name that nothing is remembered of."""

from __future__ import annotations

from pathlib import Path

import pytest

from ainfinity.compute.remote.compute import SkyPilotCompute
from ainfinity.domain.observation import Observation, Phase
from tests.compute.remote.fake_sky import FakeCluster, FakeJob, FakeManaged, InlineChores
from tests.compute.remote.place import FakeFollower, RemotePlace

OURS = "ain-0a1b2c3d-abcdefghij-a1"


class Adopting(RemotePlace):
    """A place with clusters and managed jobs of others, of which some are adopted."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.adopted: list[str] = []
        self.compute = self.start()

    def start(self) -> SkyPilotCompute:
        return SkyPilotCompute(
            self.settings,
            self.clock,
            self.sky,
            FakeFollower(self.sky, self.settings.attempts_dir),
            self.transfer,
            lambda: True,
            lambda: self.adopted,
            InlineChores(),
        )

    def cluster(self, name: str, *jobs: FakeJob) -> None:
        self.sky.machines[name] = FakeCluster(name, "UP", list(jobs), launched_at=self.clock.at - 100)

    def managed(self, number: int, name: str, status: str = "RUNNING") -> FakeManaged:
        self.sky.jobs[number] = job = FakeManaged(number, name, status)
        return job

    def look(self, name: str, times: int = 40) -> Observation | None:
        """What is said of a name once it is known what can be."""
        seen = None
        for _ in range(times):
            seen = self.compute.observe_all().get(name)
            if seen is not None and name in self.adopted:  # as the engine reads what live jobs own
                self.compute.read_lines({name: 0})
            self.clock.at += 1
        return seen


@pytest.fixture
def place(tmp_path: Path) -> Adopting:
    return Adopting(tmp_path)


def test_an_adopted_cluster_is_seen_with_state_price_and_log(place: Adopting) -> None:
    place.cluster("theirs", FakeJob(1, "old", 0.0, end="FAILED"), FakeJob(2, "train", 0.0))
    place.adopted = ["cluster:theirs"]
    seen = place.look("cluster:theirs")
    assert seen is not None
    assert (seen.phase, seen.machine, seen.handle) == (Phase.RUNNING, True, "cluster:theirs")
    assert (seen.price_per_hour, seen.given) == (2.5, "1x H100:1 slurm/fake")
    assert seen.launched_at is not None
    (lines,) = place.compute.read_lines({"cluster:theirs": 0}).values()
    assert list(lines.lines) == ["hello", "world"]


def test_its_newest_job_says_how_it_ended_and_the_cluster_stays(place: Adopting) -> None:
    job = FakeJob(2, "train", 0.0)
    place.cluster("theirs", FakeJob(1, "old", 0.0, end="FAILED"), job)
    place.adopted = ["cluster:theirs"]
    place.look("cluster:theirs")
    job.end = "SUCCEEDED"
    seen = place.look("cluster:theirs", 100)
    assert seen is not None
    assert (seen.phase, seen.exit_code, seen.machine) == (Phase.EXITED, 0, True)
    assert "theirs" in place.sky.machines
    assert place.sky.calls["down"] == 0


def test_a_cluster_without_a_job_just_runs(place: Adopting) -> None:
    place.cluster("theirs")
    place.adopted = ["cluster:theirs"]
    seen = place.look("cluster:theirs", 200)
    assert seen is not None
    assert (seen.phase, seen.machine) == (Phase.RUNNING, True)
    assert place.sky.calls["launch"] == 0


def test_a_cluster_that_goes_is_gone(place: Adopting) -> None:
    place.cluster("theirs", FakeJob(1, "train", 0.0))
    place.adopted = ["cluster:theirs"]
    place.look("cluster:theirs")
    del place.sky.machines["theirs"]
    seen = place.look("cluster:theirs", 100)
    assert seen is not None
    assert (seen.phase, seen.machine) == (Phase.VANISHED, False)


def test_an_adopted_managed_job_is_seen_over_its_recovery(place: Adopting) -> None:
    job = place.managed(7, "train")
    place.adopted = ["managed:7"]
    seen = place.look("managed:7")
    assert seen is not None
    assert (seen.phase, seen.machine, seen.handle) == (Phase.RUNNING, True, "managed:7")
    job.status = "RECOVERING"
    seen = place.look("managed:7")
    assert seen is not None
    assert seen.phase == Phase.RECOVERING
    job.status, job.done = "SUCCEEDED", True
    seen = place.look("managed:7", 100)
    assert seen is not None
    assert (seen.phase, seen.exit_code, seen.machine) == (Phase.EXITED, 0, False)


def test_adopted_and_our_own_are_asked_for_together(place: Adopting) -> None:
    place.managed(7, "train")
    place.adopted = ["managed:7"]
    place.compute.launch(place.raw(OURS))
    seen = place.look(OURS)
    assert seen is not None
    also = place.look("managed:7")
    assert also is not None
    assert also.phase == Phase.RUNNING


def test_a_claimed_one_is_ended_by_its_own_name(place: Adopting) -> None:
    place.cluster("theirs", FakeJob(1, "train", 0.0))
    place.cluster("another")
    place.managed(7, "train")
    place.adopted = ["cluster:theirs", "managed:7"]
    place.look("cluster:theirs")
    place.compute.stop("cluster:theirs")
    place.compute.stop("managed:7")
    assert set(place.sky.machines) == {"another"}
    assert place.sky.jobs[7].status == "CANCELLING"


def test_a_worker_that_starts_anew_finds_it_again(place: Adopting) -> None:
    place.cluster("theirs", FakeJob(1, "train", 0.0))
    place.adopted = ["cluster:theirs"]
    place.look("cluster:theirs")
    place.compute = place.start()
    seen = place.look("cluster:theirs")
    assert seen is not None
    assert seen.phase == Phase.RUNNING


def test_one_that_is_over_is_looked_at_no_more_and_can_be_adopted_anew(place: Adopting) -> None:
    place.cluster("theirs", FakeJob(1, "train", 0.0))
    place.adopted = ["cluster:theirs"]
    place.look("cluster:theirs")
    place.adopted = []
    place.compute.release("cluster:theirs")
    assert place.look("cluster:theirs") is None
    place.adopted = ["cluster:theirs@2"]
    seen = place.look("cluster:theirs@2")
    assert seen is not None
    assert (seen.phase, seen.handle) == (Phase.RUNNING, "cluster:theirs@2")


def test_what_nobody_adopted_is_not_looked_at(place: Adopting) -> None:
    place.cluster("theirs", FakeJob(1, "train", 0.0))
    place.managed(7, "train")
    assert place.look("cluster:theirs") is None
    assert place.compute.observe_all() == {}


# --- what may be an orphan ------------------------------------------------------------


def test_a_stranger_with_our_name_is_listed_with_what_it_costs(place: Adopting) -> None:
    place.cluster(OURS)
    began = place.clock.at - 100
    seen = place.look(OURS)
    assert seen is not None
    assert (seen.machine, seen.price_per_hour, seen.launched_at) == (True, 2.5, began)
    assert seen.handle == f"cluster:{OURS}"


def test_a_managed_stranger_is_told_from_a_cluster(place: Adopting) -> None:
    place.managed(7, OURS)
    seen = place.look(OURS)
    assert seen is not None
    assert seen.handle == f"managed:{OURS}"
    place.compute.stop(OURS)
    assert place.sky.jobs[7].status == "CANCELLING"
    place.sky.jobs[7].status = "CANCELLED"
    assert place.look(OURS, 2) is None  # asked for again at once


def test_an_adopted_orphan_is_listed_under_its_new_name_only(place: Adopting) -> None:
    place.cluster(OURS, FakeJob(1, "train", 0.0))
    place.adopted = [f"cluster:{OURS}"]
    place.look(f"cluster:{OURS}")
    assert set(place.compute.observe_all()) == {f"cluster:{OURS}"}

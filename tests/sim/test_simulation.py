"""The engine keeps its promise on thousands of bad days, and the simulation would notice if it did not.

`AINFINITY_ROUNDS` (20 if unset) times 100 schedules are played. More: `make sim N=100000`; one: `make sim SEED=1234`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ainfinity.compute.fake import Weather
from ainfinity.schema.event import EventType
from ainfinity.schema.states import JobState
from ainfinity.schema.training_job import JobSpec
from tests.sim.batch import play_many
from tests.sim.simulation import PERSON, Ground, Simulation, Switches, ground, play

ROUNDS = int(os.environ.get("AINFINITY_ROUNDS", "20"))
#: Every place at which a worker can be killed.
PLACES = {
    *("clock", "read", "write", "commit", "committed"),
    *(
        f"{call}:{when}"
        for call in ("observe_all", "launch", "stop", "extend", "read_lines", "verify", "release", "told", "tell")
        for when in ("before", "after")
    ),
}
#: Events of trainer lines that the fake does not write, of records that the simulated people do not delete, and of
#: machines and jobs that were not launched from here.
NOT_PLAYED = {
    EventType.TRAINER_EVAL,
    EventType.TRAINER_SAMPLE,
    EventType.TRAINER_WARNING,
    EventType.DELETED,
    EventType.ADOPTED,
    EventType.CLAIMED,
    EventType.ORPHAN_FOUND,
    EventType.ORPHAN_REMOVED,
}


@pytest.fixture(scope="module")
def place() -> Iterator[Ground]:
    with ground() as made:
        yield made


@pytest.mark.timeout(1800)
def test_no_job_is_lost_launched_twice_or_left_running(capsys: pytest.CaptureFixture[str]) -> None:
    report = play_many(0, ROUNDS * 100, os.cpu_count() or 1)
    with capsys.disabled():
        print(f"\nsimulation: {report.summary()}")
    assert not report.broken, report.summary()
    assert report.played == ROUNDS * 100
    if report.played >= 1000:  # that all of this happened is what makes the silence of the invariants mean something
        happened = report.happened
        assert [name for name in PLACES if not happened[f"killed at {name}"]] == []
        assert [kind for kind in EventType if kind not in NOT_PLAYED and not happened[kind]] == []
        assert happened["lease lost"] > 100
        assert happened["attempt.adopted"] > 20
        assert sum(count for name, count in happened.items() if name.startswith("paused at ")) > 200


CONTROLS = {
    "launch before recording": (Switches(intent=False), "launched 2 times"),
    "no grace": (Switches(grace=False), "launched 2 times|runs on, though|is lost, but"),
    "no end at the deadline": (Switches(deadline=False), "past its bounds|is still|still running"),
    "no end at the budget": (Switches(budget=False), r"cost \$"),
    "no end of the waiting": (Switches(stay=False), "past its bounds|is still|still running"),
    "no look back before telling": (Switches(look_back=False), "was told 2 times"),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_without_its_care_the_invariants_break(name: str) -> None:
    """The negative controls: each rule that is turned off must show within a few hundred schedules."""
    switches, complaint = CONTROLS[name]
    report = play_many(0, 1000, os.cpu_count() or 1, switches, enough=1)
    assert any(re.search(complaint, broke) for broke in report.broken.values()), report.summary()


def test_a_seed_replays_exactly(place: Ground) -> None:
    """The same trace again, also in a process whose hashes differ, as `make sim SEED=…` runs it."""
    seed = 42
    first = play(place, seed)
    assert len(first.trace) > 10
    assert play(place, seed).trace == first.trace
    command = [sys.executable, "-m", "tests.sim", "--seed", str(seed)]
    root = Path(__file__).parents[2]
    for hashes in ("1", "2"):
        told = subprocess.run(
            command, env=os.environ | {"PYTHONHASHSEED": hashes}, cwd=root, capture_output=True, text=True, check=True
        )
        assert told.stdout.splitlines() == [*first.trace, "all invariants hold"]


@pytest.fixture
def quiet(place: Ground) -> Simulation:
    """A schedule in which nothing happens but what a test does."""
    sim = Simulation(place, seed=0)
    sim.chance.crash = sim.chance.hang = sim.chance.slow = sim.database.locked = 0.0
    sim.backend.weather = Weather(run=(60.0, 60.0))
    sim.backend.lag = 10.0
    for worker in sim.workers:
        worker.compute.lag = 10.0
    sim.backend._slots = None
    spec = {
        "name": "job",
        "recipe": {"model": "none", "data": str(place.data), "max_steps": 4},
        "resources": {"infra": "fake"},
    }
    sim.service.launch_job(JobSpec.model_validate(spec), "key", PERSON)
    return sim


def launches(sim: Simulation) -> Counter[str]:
    return Counter(sim.world.launches)


def test_a_slow_round_does_not_pass_for_a_long_absence(quiet: Simulation) -> None:
    """The list was asked within the lag, and the decision comes long after: the answer is as old as the question."""
    worker, world, chance = quiet.workers[0], quiet.world, quiet.chance
    world.script["launch"].append("launch_reply_lost")
    worker.round()
    (name,) = world.launches
    world.machines[name][0].listed = chance.time + 8.0
    chance.time += 0.1
    worker.round()
    chance.time += 6.9
    chance.script["observe_all:after"] = 5.0
    worker.round()
    chance.time += 1.0
    worker.round()
    assert launches(quiet)[name] == 1
    quiet.look()


@pytest.mark.parametrize("careful", [True, False])
def test_a_renewal_that_outlasts_the_lease_is_none(quiet: Simulation, careful: bool) -> None:
    """A worker is paused in the renewal before its launch call, and another takes over.

    The control is a worker that does not look at the clock again: then two machines run.
    """
    first, second = quiet.workers
    chance = quiet.chance
    quiet.backend.lag = 0.0
    for worker in quiet.workers:
        worker.compute.lag = 0.0
    quiet.world.outage = chance.time + 1.0
    first.round()  # takes the lease, and gets no answer
    chance.time += 2.0

    def take_over() -> None:
        chance.time += 11.0
        second.round()

    # The lease is due when the round comes to its launch, and the renewal is where the worker is paused.
    renew = first.fence.renew

    def paused_renew() -> None:
        renew()
        actor, chance.actor = chance.actor, ""
        take_over()
        chance.actor = actor

    first.fence.renew = paused_renew
    if not careful:
        due = first.fence.ttl - first.fence.renew_after
        first.fence.must_hold = lambda: paused_renew() if first.fence.expires_at - chance.time < due else None
        first.fence.must_still_hold = lambda: None
    chance.script["observe_all:after"] = 5.0
    first.round()
    assert set(launches(quiet).values()) == {1 if careful else 2}


def test_a_job_cancelled_in_the_dark_is_stopped_when_the_light_comes_back(quiet: Simulation) -> None:
    """A cancelled job without contact is neither declared over nor forgotten."""
    worker, world, chance = quiet.workers[0], quiet.world, quiet.chance
    worker.round()
    (name,) = world.launches
    chance.time += 9.0
    worker.round()
    world.outage = chance.time + 50.0
    quiet.service.stop_job("job", PERSON)
    for _ in range(10):
        chance.time += 4.0
        worker.round()
        quiet.look()
        assert world.running(chance.time) == {name}
    for _ in range(8):
        chance.time += 4.0
        worker.round()
        quiet.look()
    assert not world.running(chance.time)
    assert [job.state for job in quiet.witness.jobs.values()] == [JobState.CANCELLED]

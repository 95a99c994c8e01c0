"""The fake backend does what its weather says: each fault shows, and without any of them nothing goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest

from ainfinity.compute.fake import FakeCompute, Weather, World
from ainfinity.compute.port import LaunchRequest
from ainfinity.core.exceptions import AinfinityError, ComputeUnreachable, Refused
from ainfinity.domain.observation import Phase

NAME = "ain-00000000-abcdefghij-a1"
LAG = 10.0


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at


class Life:
    """What one machine's life looked like from outside, second by second."""

    def __init__(self, weather: Weather, *, stop_at: float | None = None, deadline: float | None = None) -> None:
        self.clock = Clock()
        self.world = World()
        self.compute = FakeCompute(self.world, self.clock, seed=1, weather=weather, lag=LAG)
        self.errors: list[str] = []
        self.phases: list[str] = []
        self.prices: set[float] = set()
        self.stops = 0
        self.attempt(lambda: self.compute.launch(LaunchRequest(NAME, "j", 1, {}, "", "", deadline=deadline)))
        for second in range(60):
            self.clock.at = 1000.0 + second
            if stop_at is not None and second >= stop_at and self.world.copies(NAME, self.clock.at):
                self.stops += 1
                self.attempt(lambda: self.compute.stop(NAME))
            self.attempt(self.look)
        self.lines: str = ""
        self.attempt(self.read)

    def attempt(self, call: Callable[[], object]) -> None:
        try:
            call()
        except AinfinityError as error:
            self.errors.append(type(error).__name__)

    def look(self) -> None:
        found = self.compute.observe_all().get(NAME)
        if found is not None and found.price_per_hour is not None:
            self.prices.add(found.price_per_hour)
        self.phases.append("absent" if found is None else f"{found.phase}{'' if found.machine else ', gone'}")

    def read(self) -> None:
        self.lines = "\n".join(self.compute.read_lines({NAME: 0})[NAME].lines)

    @property
    def alive_at_the_end(self) -> bool:
        return bool(self.world.running(self.clock.at))


def raises(kind: type[Exception], call: Callable[[], object]) -> bool:
    try:
        call()
    except kind:
        return True
    return False


FAIR = Weather(setup=(2.0, 2.0), run=(10.0, 10.0))
EXITED = f"{Phase.EXITED}, gone"


def with_all(**rates: float) -> Weather:
    return Weather(setup=(2.0, 2.0), run=(10.0, 10.0), **rates)


def test_in_fair_weather_nothing_goes_wrong() -> None:
    life = Life(FAIR)
    assert life.errors == []
    assert not life.alive_at_the_end
    assert list(dict.fromkeys(life.phases)) in (
        ["absent", "setting_up", "running", EXITED],
        ["absent", "running", EXITED],
    )
    assert life.phases.index("running") <= LAG
    assert '"kind": "finished"' in life.lines


SHOWS: dict[str, Callable[[], bool]] = {
    "timeout": lambda: Life(with_all(timeout=1.0)).errors.count("ComputeUnreachable") == 62,
    "launch_lost": lambda: (
        set((life := Life(with_all(launch_lost=1.0))).phases) == {"absent"} and not life.world.machines
    ),
    "launch_reply_lost": lambda: (
        (life := Life(with_all(launch_reply_lost=1.0))).errors == ["ComputeUnreachable"] and EXITED in life.phases
    ),
    "launch_refused": lambda: (
        (life := Life(with_all(launch_refused=1.0))).errors == ["Refused"] and not life.world.machines
    ),
    "stop_lost": lambda: Life(with_all(stop_lost=1.0), stop_at=4).stops == 8,
    "stop_reply_lost": lambda: (
        (life := Life(with_all(stop_reply_lost=1.0), stop_at=4)).stops == 1 and life.errors == ["ComputeUnreachable"]
    ),
    "stale": lambda: (
        (a := Life(with_all(stale=1.0)).phases) != (b := Life(FAIR).phases) and set(a) <= {*b, "setting_up"}
    ),
    "missing": lambda: "absent" in Life(with_all(missing=1.0)).phases[20:],
    "export_bad": lambda: Life(with_all(export_bad=1.0)).compute.verify(NAME, []) != "",
    "short_read": lambda: Life(with_all(short_read=1.0)).lines == "Loading weights",
    "late": lambda: Life(with_all(late=1.0)).world.machines[NAME][0].begins > 1000.0,
    "fail": lambda: '"kind": "failed"' in Life(with_all(fail=1.0)).lines,
    "preempted": lambda: Life(with_all(preempted=1.0)).compute.observe_all()[NAME].reason == "terminated",
    "vanish": lambda: Life(with_all(vanish=1.0)).phases[-1] == f"{Phase.VANISHED}, gone",
    "unlisted": lambda: Life(with_all(unlisted=1.0)).phases[-1] == "absent",
    "recover": lambda: Phase.RECOVERING in Life(with_all(recover=1.0)).phases,
    "linger": lambda: Life(with_all(linger=1.0)).alive_at_the_end,
    "stubborn": lambda: Life(with_all(stubborn=1.0), stop_at=4).stops > 1,
    "forgotten": lambda: Life(with_all(forgotten=1.0), stop_at=4).phases[-1] == "absent",
    "silent": lambda: (life := Life(with_all(silent=1.0))).phases[-1] == "running" and '"step"' not in life.lines,
    "deaf": lambda: (
        Life(with_all(deaf=1.0, silent=1.0), deadline=1005.0).phases[-1] == "running"
        and Life(with_all(silent=1.0), deadline=1005.0).phases[-1] == EXITED
    ),
    "away": lambda: (
        (life := Life(with_all(away=1.0))).alive_at_the_end
        and raises(ComputeUnreachable, lambda: life.compute.verify(NAME, []))
    ),
    "unpriced": lambda: (
        Life(replace(FAIR, price=(2.0, 2.0))).prices == {2.0}
        and Life(replace(FAIR, price=(2.0, 2.0), unpriced=1.0)).prices == set()
    ),
}


@pytest.mark.parametrize("fault", SHOWS)
def test_each_fault_shows(fault: str) -> None:
    assert SHOWS[fault]()


def test_no_fault_is_left_out() -> None:
    durations = {"setup", "run", "stop", "price", "pending", "away_for"}
    assert {field.name for field in fields(Weather)} - durations == SHOWS.keys()


def test_a_second_launch_is_a_second_copy_and_is_counted() -> None:
    clock, world = Clock(), World()
    compute = FakeCompute(world, clock)
    request = LaunchRequest(NAME, "j", 1, {}, "", "")
    compute.launch(request)
    compute.launch(request)
    assert world.launches == {NAME: 2}
    assert world.copies(NAME, clock.now()) == 2
    kind = FakeCompute(World(), clock, idempotent=True)
    assert kind.launch(request) == kind.launch(request)


def test_faults_come_on_demand_once() -> None:
    clock, world = Clock(), World()
    compute = FakeCompute(world, clock)
    request = LaunchRequest(NAME, "j", 1, {}, "", "")
    world.script["launch"] += ["launch_refused", "launch_lost"]
    with pytest.raises(Refused):
        compute.launch(request)
    with pytest.raises(ComputeUnreachable):
        compute.launch(request)
    assert compute.launch(request)
    world.outage = clock.at + 5
    with pytest.raises(ComputeUnreachable):
        compute.observe_all()
    clock.at += 5
    assert NAME in compute.observe_all()
    assert world.calls == {"launch": 3, "observe_all": 2}


def test_it_waits_for_a_machine_and_costs_only_with_one() -> None:
    life = Life(replace(FAIR, pending=(5.0, 5.0), price=(3600.0, 3600.0)), stop_at=30)
    assert "pending" in life.phases
    assert life.phases.index("pending") < life.phases.index("setting_up") < life.phases.index("running")
    (machine,) = life.world.machines[NAME]
    assert sum(seconds for seconds, _ in machine.paid(life.clock.at)) == machine.ends - machine.begins - 5.0


def test_a_later_deadline_changes_nothing_that_was_written() -> None:
    clock, world = Clock(), World()
    compute = FakeCompute(world, clock, weather=FAIR)
    compute.launch(LaunchRequest(NAME, "j", 1, {}, "", "", deadline=1008.0))
    clock.at = 1007.0
    before = compute.read_lines({NAME: 0})[NAME]
    compute.extend(NAME, 2000.0)
    clock.at = 1100.0
    after = compute.read_lines({NAME: 0})[NAME]
    assert list(after.lines[: len(before.lines)]) == list(before.lines)
    assert '"finished"' in after.lines[-1]

"""What the contract suite needs of a backend's surroundings, for each backend.

A new backend gets a class here that keeps `Harness`, and a line in `HARNESSES`; the suite then runs over it too.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ainfinity.compute.fake import FakeCompute, Machine, Weather, World
from ainfinity.compute.port import Compute, LaunchRequest
from tests.compute.place import Place
from tests.compute.remote.place import RemotePlace


class Harness(Protocol):
    """Owns what lies behind a backend: says what truly happens there, and makes things happen."""

    def backend(self) -> Compute:
        """A new backend over the same surroundings, as a restarted worker makes it."""
        ...

    def request(self, name: str, deadline_in: float | None = None) -> LaunchRequest:
        """A request for an attempt that says `hello` and runs until it is told to end."""
        ...

    def wait(self) -> None:
        """Let a little time go by."""
        ...

    def starts(self, name: str) -> int:
        """How often the attempt truly began."""
        ...

    def alive(self, name: str) -> int:
        """How many copies of the attempt truly run."""
        ...

    def finish(self, name: str, code: int) -> None:
        """Have a running attempt exit with 0 or 1."""
        ...

    def vanish(self, name: str) -> None:
        """Have a running attempt's machine go down without a word."""
        ...

    def export(self, name: str, *, damaged: bool) -> list[Mapping[str, Any]]:
        """Have the attempt write a file, and return what it says of it."""
        ...

    def close(self) -> None:
        """End everything."""
        ...


class LocalHarness:
    """Real processes on this machine."""

    def __init__(self, root: Path) -> None:
        self.place = Place(root)

    def backend(self) -> Compute:
        return self.place.backend()

    def request(self, name: str, deadline_in: float | None = None) -> LaunchRequest:
        deadline = None if deadline_in is None else time.time() + deadline_in
        return self.place.request(name, recipe={"lines": ["hello"]}, deadline=deadline)

    def wait(self) -> None:
        time.sleep(0.01)

    def starts(self, name: str) -> int:
        return len(self.place.notes("starts", name))

    def alive(self, name: str) -> int:
        return len(self.place.alive(name))

    def finish(self, name: str, code: int) -> None:
        self.place.finish(code, name)

    def vanish(self, name: str) -> None:
        for pid in (self.place.supervisor(name), *self.place.alive(name)):
            os.kill(pid, signal.SIGKILL)

    def export(self, name: str, *, damaged: bool) -> list[Mapping[str, Any]]:
        (Path(self.place.request(name).output_dir) / "model").write_bytes(b"damaged" if damaged else b"weights")
        return [{"path": "model", "size": 7, "sha256": hashlib.sha256(b"weights").hexdigest()}]

    def close(self) -> None:
        self.place.clear()


@dataclass
class StandingClock:
    """A clock that moves when told."""

    at: float = 1e9

    def now(self) -> float:
        return self.at


@dataclass
class FakeHarness:
    """The fake, with a lag and in fair weather; its faults are for the simulation."""

    root: Path
    world: World = field(default_factory=World)
    clock: StandingClock = field(default_factory=StandingClock)

    def backend(self) -> Compute:
        weather = Weather(setup=(1.0, 1.0), run=(1e6, 1e6), stop=(0.5, 0.5), late=1.0)
        return FakeCompute(self.world, self.clock, weather=weather, lag=3.0, slots=4, idempotent=True)

    def request(self, name: str, deadline_in: float | None = None) -> LaunchRequest:
        deadline = None if deadline_in is None else self.clock.now() + deadline_in
        return LaunchRequest(
            name=name,
            job_id="abcdefghij",
            attempt=1,
            recipe={},
            output_dir=str(self.root),
            checkpoint_dir=str(self.root),
            deadline=deadline,
        )

    def wait(self) -> None:
        self.clock.at += 0.1

    def starts(self, name: str) -> int:
        return sum(machine.begins <= self.clock.at for machine in self.world.machines.get(name, ()))

    def alive(self, name: str) -> int:
        return self.world.copies(name, self.clock.at)

    def _machine(self, name: str) -> Machine:
        (machine,) = self.world.machines[name]
        return machine

    def finish(self, name: str, code: int) -> None:
        machine = self._machine(name)
        machine.ends, machine.end = self.clock.at, "failed" if code else "finished"

    def vanish(self, name: str) -> None:
        machine = self._machine(name)
        machine.ends, machine.end = self.clock.at, "vanished"

    def export(self, name: str, *, damaged: bool) -> list[Mapping[str, Any]]:
        if damaged:
            self.world.script["verify"].append("export_bad")
        return [{"path": "model", "size": 1, "sha256": ""}]

    def close(self) -> None:
        self.world.machines.clear()


class SkyPilotHarness:
    """SkyPilot's backend, each attempt on a cluster of its own. SkyPilot itself is a fake that refuses as it does."""

    def __init__(self, root: Path) -> None:
        self.place = RemotePlace(root)
        self.sky = self.place.sky

    def backend(self) -> Compute:
        return self.place.backend()

    def request(self, name: str, deadline_in: float | None = None) -> LaunchRequest:
        deadline = None if deadline_in is None else self.place.clock.now() + deadline_in
        return self.place.request(name, deadline)

    def wait(self) -> None:
        self.place.clock.at += 0.1

    def starts(self, name: str) -> int:
        return self.sky.started[name]

    def alive(self, name: str) -> int:
        return self.sky.alive(name)

    def finish(self, name: str, code: int) -> None:
        self.sky.job_of(name).end = "FAILED" if code else "SUCCEEDED"

    def vanish(self, name: str) -> None:
        del self.sky.machines[name]

    def export(self, name: str, *, damaged: bool) -> list[Mapping[str, Any]]:
        (self.place.output / "model").write_bytes(b"damaged" if damaged else b"weights")
        return [{"path": "model", "size": 7, "sha256": hashlib.sha256(b"weights").hexdigest()}]

    def close(self) -> None:
        self.sky.machines.clear()


HARNESSES: dict[str, Callable[[Path], Harness]] = {
    "local": LocalHarness,
    "fake": FakeHarness,
    "skypilot": SkyPilotHarness,
}

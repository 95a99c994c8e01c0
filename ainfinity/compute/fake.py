"""A backend that behaves like a real cloud on its worst day, for tests.

`World` is the truth: which machines exist and what becomes of them. `FakeCompute` tells of it late, partly or not at
all, by chance (`Weather`) or on demand (`World.script`). A machine's whole life is drawn when its launch takes effect
and is a function of time from then on, so nothing runs in the background and one seed gives one course of events.

Unlike a backend that helps, it starts a second copy when the same name is launched twice, and counts it.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from ainfinity.compute.fake_machine import STEPS, Machine, Weather, log, with_deadline
from ainfinity.compute.port import LaunchRequest, Lines
from ainfinity.core.clock import Clock
from ainfinity.core.exceptions import ComputeUnreachable, Refused
from ainfinity.domain.observation import Observation

__all__ = ["STEPS", "FakeCompute", "Machine", "Weather", "World"]

#: The shares of the lag by which an effect may follow its call, the list may follow the effect, and a list may be old.
LATE = 0.4
STALE = 0.2


@dataclass(slots=True)
class World:
    """The truth about all machines of one backend, and a count of every call that was made."""

    machines: dict[str, list[Machine]] = field(default_factory=dict[str, "list[Machine]"])
    released: set[str] = field(default_factory=set[str])
    calls: Counter[str] = field(default_factory=Counter[str])
    #: Faults to come, by the method that meets them: `world.script["launch"].append("launch_lost")`.
    script: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict[str, "list[str]"](list))
    #: Until when no call gets an answer.
    outage: float = 0.0
    #: The names on the last list.
    shown: set[str] = field(default_factory=set[str])

    @property
    def launches(self) -> dict[str, int]:
        """How often the launch of each name took effect; more than 1 is what must never be."""
        return {name: len(copies) for name, copies in self.machines.items()}

    def copies(self, name: str, at: float) -> int:
        """How many machines of that name run or cost at that time."""
        return sum(machine.alive(at) for machine in self.machines.get(name, ()))

    def running(self, at: float) -> set[str]:
        """The names that have a machine at that time, or will have one whose launch is on its way."""
        return {
            name for name, copies in self.machines.items() if any(one.alive(at) or at < one.begins for one in copies)
        }

    def open(self) -> AbstractContextManager[World]:
        """Return the world for one call."""
        return self._held()

    @contextmanager
    def _held(self) -> Generator[World]:
        yield self


class Place(Protocol):
    """Where a world is kept."""

    def open(self) -> AbstractContextManager[World]:
        """Return the world for one call; what the call changed is kept when the block ends."""
        ...


class FakeCompute:
    """The backend over a world. `idempotent` makes a second launch of a name find the first, as a kind backend does."""

    name = "fake"
    remote = False

    def __init__(
        self,
        world: Place,
        clock: Clock,
        *,
        seed: int | str = 0,
        weather: Weather | None = None,
        lag: float = 0.0,
        slots: int | None = None,
        idempotent: bool = False,
    ) -> None:
        self.lag = lag
        self.weather = weather or Weather()
        self._world = world
        self._clock = clock
        self._seed = seed
        self._random = random.Random(f"calls/{seed}")  # noqa: S311
        self._slots = slots
        self._idempotent = idempotent

    def capacity(self) -> int | None:
        """Return the number of slots it was made with."""
        return self._slots

    def observe_all(self) -> Mapping[str, Observation]:
        """List the machines, perhaps as of a while ago and perhaps without one of them."""
        with self._call("observe_all") as world:
            at = self._clock.now()
            if self._meets(world, "observe_all", "stale"):
                at -= self._random.uniform(0.0, STALE * self.lag)
            found = {name: seen for name in world.machines if (seen := self._observe(world, name, at))}
            # Only what the last list showed can be missing: all else would be a lag beyond the one that is promised.
            names = sorted(found.keys() & world.shown)
            if names and self._meets(world, "observe_all", "missing"):
                del found[self._random.choice(names)]
            world.shown = set(found)
            return found

    def launch(self, request: LaunchRequest) -> str:
        """Start one more machine of that name, now or within the lag."""
        with self._call("launch") as world:
            if self._meets(world, "launch", "launch_refused"):
                raise Refused("The backend will not start this.", hint="Change what is asked for.")
            if self._meets(world, "launch", "launch_lost"):
                raise ComputeUnreachable("The launch was lost on its way.")
            copies = world.machines.setdefault(request.name, [])
            if not (self._idempotent and copies):
                copies.append(self._draw(request, len(copies) + 1))
            lost = self._meets(world, "launch", "launch_reply_lost")
            handle = f"{request.name}/{len(copies)}"
        if lost:
            raise ComputeUnreachable("The reply to a launch was lost.")
        return handle

    def stop(self, name: str) -> None:
        """Begin to end every machine of that name that exists by now; one whose launch is on its way is missed."""
        with self._call("stop") as world:
            if self._meets(world, "stop", "stop_lost"):
                raise ComputeUnreachable("The stop was lost on its way.")
            at = self._clock.now()
            for machine in world.machines.get(name, ()):
                if machine.alive(at) and machine.stopped is None:
                    machine.stops_left -= 1
                    if machine.stops_left <= 0:
                        machine.stopped = at + machine.stop_seconds
            lost = self._meets(world, "stop", "stop_reply_lost")
        if lost:
            raise ComputeUnreachable("The reply to a stop was lost.")

    def read_lines(self, offsets: Mapping[str, int]) -> Mapping[str, Lines]:
        """Return what each machine wrote after the offset, perhaps only its first line."""
        with self._call("read_lines") as world:
            at = self._clock.now()
            found: dict[str, Lines] = {}
            for name, offset in offsets.items():
                rest = b"".join(log(world.machines[name][-1], at))[offset:] if name in world.machines else b""
                if rest and self._meets(world, "read_lines", "short_read"):
                    rest = rest[: rest.index(b"\n") + 1]
                found[name] = Lines(rest.decode().splitlines(), offset + len(rest))
            return found

    def verify(self, name: str, files: Sequence[Mapping[str, Any]]) -> str:
        """Find the export good, or damaged by chance; one that is out of reach goes with its machine."""
        with self._call("verify") as world:
            at = self._clock.now()
            for machine in world.machines.get(name, ())[-1:]:
                if at < machine.fetched_at and machine.alive(at):
                    raise ComputeUnreachable(f"What {name} made cannot be reached.")
                if at < machine.fetched_at:
                    return f"{name}: its machine is gone, and the export with it"
            return f"{name}: the export is damaged" if self._meets(world, "verify", "export_bad") else ""

    def extend(self, name: str, deadline: float | None) -> None:
        """Give every machine of that name that still runs, or is about to, another deadline."""
        with self._call("extend") as world:
            at = self._clock.now()
            running = [one for one in world.machines.get(name, ()) if at < one.over]
            if not running:
                raise Refused(f"{name} does not run.", hint="Only a running attempt can be extended.")
            for machine in running:
                if not machine.deaf:
                    machine.end, machine.ends = with_deadline(machine.fate, deadline, max(at, machine.begins))

    def release(self, name: str) -> None:
        """Take the name off the list."""
        with self._call("release") as world:
            world.released.add(name)

    @contextmanager
    def _call(self, method: str) -> Generator[World]:
        with self._world.open() as world:
            world.calls[method] += 1
            unreachable = self._clock.now() < world.outage or self._meets(world, method, "timeout")
            if not unreachable:
                yield world
        if unreachable:
            raise ComputeUnreachable(f"{self.name} did not answer {method}.", hint="It is asked again.")

    def _meets(self, world: World, method: str, fault: str) -> bool:
        if fault in world.script[method]:
            world.script[method].remove(fault)
            return True
        rate: float = getattr(self.weather, fault)
        return rate > 0 and self._random.random() < rate

    def _observe(self, world: World, name: str, at: float) -> Observation | None:
        """The word on a name: that of its first living copy, else of the last."""
        if name in world.released:
            return None
        seen = [one for machine in world.machines[name] if (one := machine.observe(at))]
        return next((one for one in seen if one.machine), seen[-1] if seen else None)

    def _delay(self, draw: random.Random) -> float:
        """Draw how late something comes; the latest possible is as likely as all else, since faults hide there."""
        return LATE * self.lag * draw.choice((draw.random(), 1.0))

    def _draw(self, request: LaunchRequest, copy: int) -> Machine:
        """Draw a machine's life. All that comes late comes within the lag of the call."""
        weather, draw = self.weather, random.Random(f"{self._seed}/{request.name}/{copy}")  # noqa: S311
        begins = self._clock.now() + (self._delay(draw) if draw.random() < weather.late else 0.0)
        given_at = begins + draw.uniform(*weather.pending)
        runs = given_at + draw.uniform(*weather.setup)
        seconds = draw.uniform(*weather.run)
        fates = ("failed", weather.fail), ("preempted", weather.preempted), ("vanished", weather.vanish)
        dice, end = draw.random(), "finished"
        for fate, rate in (*fates, ("unlisted", weather.unlisted)):
            if end == "finished" and dice < rate:
                end = fate
            dice -= rate
        ends = runs + (seconds if end == "finished" else seconds * draw.random())
        if draw.random() < weather.silent:
            end, ends = "silent", runs + 1e9
        fate, deaf = (end, ends), draw.random() < weather.deaf
        end, ends = fate if deaf else with_deadline(fate, request.deadline, begins)
        recovers = draw.random() < weather.recover
        away = fate[0] == "finished" and draw.random() < weather.away
        prices = [None if draw.random() < weather.unpriced else round(draw.uniform(*weather.price), 2) for _ in "AB"]
        middle = runs + (ends - runs) * 0.4, runs + (ends - runs) * 0.6
        return Machine(
            name=request.name,
            copy=copy,
            slots=request.slots,
            begins=begins,
            listed=begins + self._delay(draw),
            runs=runs,
            ends=ends,
            end=end,
            recovery=middle if recovers else None,
            lingers=away or (end in ("finished", "failed") and draw.random() < weather.linger),
            forgotten=self._delay(draw) if draw.random() < weather.forgotten else None,
            stops_left=draw.randint(2, 3) if draw.random() < weather.stubborn else 1,
            stop_seconds=draw.uniform(*weather.stop),
            resume_step=request.resume_step,
            fate=fate,
            deaf=deaf,
            given_at=given_at,
            price=prices[0] or None,
            next_price=prices[1] or None,
            fetched_at=ends + draw.uniform(*weather.away_for) if away else 0.0,
        )

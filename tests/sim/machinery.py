"""The simulated world around the engine: time, the database, the backend and the notices, each of which can fail.

Every call that the engine makes of a port passes a `point`, at which the worker may be killed, or paused while another
worker and people go on. All chance comes from one seed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Connection

from ainfinity.compute.fake import FakeCompute
from ainfinity.compute.port import LaunchRequest, Lines
from ainfinity.core.exceptions import DatabaseLocked
from ainfinity.domain.observation import Observation
from ainfinity.store.database import Database
from ainfinity.store.migrate import ensure_schema
from ainfinity.store.tables import core

_RARE = {"launch": 3.0, "stop": 3.0, "verify": 3.0, "release": 3.0, "extend": 10.0}
INSTALLATION = "0f1e2d3c"


class Crash(BaseException):
    """The worker is killed here. Not an Exception, so that nothing in the engine handles it."""


class Chance:
    """The seed's dice, the clock, and what happens at a point. `pause` is what goes on while a worker is paused."""

    def __init__(self, seed: int | str) -> None:
        self.dice = random.Random(seed)
        self.time = 1_700_000_000.0
        self.crash = 0.0
        self.hang = 0.0
        self.slow = 0.0
        #: Who is at work: points mean nothing to people, and a second worker within a pause is not paused itself.
        self.actor = ""
        self.paused = ""
        #: Nothing is paused in a writing transaction: the database lets one writer in at a time, and the others wait.
        self.writing = False
        self.pause: Callable[[], None] = lambda: None
        self.trace: list[str] = []
        self.happened: Counter[str] = Counter()
        #: Seconds that the next passing of a point takes, by its name.
        self.script: dict[str, float] = {}

    def now(self) -> float:
        """The clock that everything is given."""
        self.point("clock", pausable=True)
        return self.time

    def log(self, text: str) -> None:
        self.trace.append(f"{self.time - 1_700_000_000:9.3f} {self.actor or 'world':6} {text}")

    def point(self, name: str, *, pausable: bool = False) -> None:
        """Let the worker at work be killed or paused here, or just take its time."""
        if not self.actor:
            return
        self.time += self.script.pop(name, 0.001)
        dice = self.dice.random()
        # Calls are rarer than what goes on around them, and worse to be killed at.
        crash = self.crash * _RARE.get(name.partition(":")[0], 1.0)
        if dice < crash:
            self.log(f"is killed at {name}")
            self.happened[f"killed at {name}"] += 1
            raise Crash(name)
        dice -= crash
        if pausable and dice < self.slow:
            self.time += self.dice.uniform(0.1, 9.0)
            self.log(f"was slow at {name}")
        dice -= self.slow
        if pausable and not self.paused and not self.writing and 0 <= dice < self.hang:
            self.log(f"is paused at {name}")
            self.happened[f"paused at {name}"] += 1
            actor = self.paused = self.actor
            self.actor = ""
            self.pause()
            self.actor, self.paused = actor, ""
            self.log("goes on")


class WorldClock:
    """The same time as the backend has it, whose own doings are no call of the worker."""

    def __init__(self, chance: Chance) -> None:
        self.chance = chance

    def now(self) -> float:
        return self.chance.time


class SimDatabase(Database):
    """A real database whose every transaction is a place to fail: before it begins, before and after it commits."""

    def __init__(self, path: Path, chance: Chance) -> None:
        ensure_schema(path)
        super().__init__(f"sqlite:///{path}")
        self.chance = chance
        self.locked = 0.0
        self.commits = 0

    def begin(self, chance: Chance) -> None:
        """Start over with an empty database of a known installation."""
        self.chance, self.locked = chance, 0.0
        with super().write() as connection:
            for table in _TABLES:
                connection.execute(table)
            connection.execute(core("meta").update().values(value=INSTALLATION))

    @contextmanager
    def write(self, *, durable: bool = False) -> Generator[Connection]:
        self.chance.point("write", pausable=True)
        if self.chance.actor and self.locked and self.chance.dice.random() < self.locked:
            self.chance.log("finds the database locked")
            raise DatabaseLocked("The database was locked for too long.")
        with super().write(durable=False) as connection:
            self.chance.writing = True
            try:
                yield connection
                self.chance.point("commit")
            finally:
                self.chance.writing = False
        self.commits += 1
        self.chance.point("committed", pausable=True)

    @contextmanager
    def read(self) -> Generator[Connection]:
        with super().read() as connection:
            yield connection
        self.chance.point("read", pausable=True)


_TABLES = [
    core(name).delete()
    for name in "delivery metric_chunk artifact progress plan event attempt job lease audit".split()  # noqa: SIM905
]


class SimCompute:
    """The fake backend as one worker reaches it. A request on its way is never paused: the lag bounds its effect."""

    name = "fake"
    remote = False

    def __init__(self, backend: FakeCompute, chance: Chance) -> None:
        self.backend = backend
        self.chance = chance
        self.lag = backend.lag
        self.calls: Counter[str] = Counter()

    @contextmanager
    def _call(self, method: str, detail: object = "") -> Generator[None]:
        self.calls[method] += 1
        self.chance.point(f"{method}:before")
        try:
            yield
        except BaseException as error:
            self.chance.log(f"{method} {detail}: {error}")
            self.chance.happened[f"{method}: {type(error).__name__}"] += 1
            raise
        if method in ("launch", "stop", "extend"):
            self.chance.log(f"{method} {detail}")
        self.chance.point(f"{method}:after", pausable=True)

    def capacity(self) -> int | None:
        return self.backend.capacity()

    def observe_all(self) -> Mapping[str, Observation]:
        with self._call("observe_all"):
            return self.backend.observe_all()

    def launch(self, request: LaunchRequest) -> str:
        with self._call("launch", request.name):
            return self.backend.launch(request)

    def stop(self, name: str) -> None:
        with self._call("stop", name):
            self.backend.stop(name)

    def read_lines(self, offsets: Mapping[str, int]) -> Mapping[str, Lines]:
        with self._call("read_lines"):
            return self.backend.read_lines(offsets)

    def verify(self, name: str, files: Sequence[Mapping[str, Any]]) -> str:
        with self._call("verify", name):
            return self.backend.verify(name, files)

    def extend(self, name: str, deadline: float | None) -> None:
        with self._call("extend", name):
            self.backend.extend(name, deadline)

    def release(self, name: str) -> None:
        with self._call("release", name):
            self.backend.release(name)


class SimNotifier:
    """A place that is told notices: it may fail before or after it has taken one."""

    slow = False

    def __init__(self, chance: Chance) -> None:
        self.chance = chance
        self.fail = 0.0
        self.looks_back = True
        self.heard: list[tuple[int, str, str, str]] = []

    def told(self, notice: Mapping[str, Any]) -> bool:
        self.chance.point("told:before")
        known = self.looks_back and any(entry[0] == notice["id"] for entry in self.heard)
        self.chance.point("told:after", pausable=True)
        return known

    def tell(self, notice: Mapping[str, Any]) -> None:
        self.chance.point("tell:before")
        if self.chance.dice.random() < self.fail:
            raise OSError("nobody listens")
        self.heard.append((notice["id"], notice["job_id"], notice["event"], notice["state"]))
        self.chance.log(f"tells {notice['event']} of {notice['job_id']}")
        self.chance.point("tell:after", pausable=True)
        if self.chance.dice.random() < self.fail:
            raise OSError("nobody says so, but it was heard")

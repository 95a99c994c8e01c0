"""One tick of the engine over 10,000 live jobs: its CPU time, and how many calls the backend gets."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ainfinity.compute.port import LaunchRequest, Lines
from ainfinity.core.config import load_settings
from ainfinity.domain.observation import Observation, Phase
from ainfinity.engine.fence import Fence
from ainfinity.engine.reconciler import Reconciler
from ainfinity.store.store import Store
from scripts.bench.measure import Figure, at_most, by_turns
from scripts.bench.seed import make_store

#: How many of the jobs change in a busy tick.
CHANGED = 100


class Counting:
    """A backend that answers from memory, so that its own work does not count, and counts what it is asked."""

    name = "local"
    lag = 0.0
    remote = False

    def __init__(self, names: Sequence[str]) -> None:
        self.found = {name: Observation(name, Phase.RUNNING, machine=True, handle="x") for name in names}
        self.calls: Counter[str] = Counter()

    def capacity(self) -> int | None:
        """As many as wanted."""
        return None

    def observe_all(self) -> Mapping[str, Observation]:
        """Count and answer."""
        self.calls["observe_all"] += 1
        return self.found

    def launch(self, request: LaunchRequest) -> str:
        """Count and answer."""
        self.calls["launch"] += 1
        return request.name

    def stop(self, name: str) -> None:
        """Count."""
        self.calls["stop"] += 1

    def read_lines(self, offsets: Mapping[str, int]) -> Mapping[str, Lines]:
        """Count and answer that nothing is new."""
        self.calls["read_lines"] += 1
        return {}

    def verify(self, name: str, files: Sequence[Mapping[str, Any]]) -> str:
        """Count and approve."""
        self.calls["verify"] += 1
        return ""

    def extend(self, name: str, deadline: float | None) -> None:
        """Count."""
        self.calls["extend"] += 1

    def release(self, name: str) -> None:
        """Count."""
        self.calls["release"] += 1

    def turn(self, names: Sequence[str]) -> None:
        """Let some attempts go from running to recovering or back."""
        for name in names:
            now = self.found[name]
            phase = Phase.RECOVERING if now.phase == Phase.RUNNING else Phase.RUNNING
            self.found[name] = replace(now, phase=phase)


class Bed:
    """A store of live jobs, a backend and an engine over them."""

    def __init__(self, path: Path, jobs: int) -> None:
        self.store: Store = make_store(path, jobs, live=True)
        fence = Fence(self.store, "bench", ttl=3600, renew_after=3600)
        if not fence.acquire():
            raise RuntimeError("the lease of a new store is taken")
        with self.store.read() as connection:
            names = [str(row[0]) for row in connection.exec_driver_sql("SELECT name FROM attempt ORDER BY name")]
        self.backend = Counting(names)
        self.changing = names[:CHANGED]
        settings = load_settings({}, data_dir=path.parent, config_dir=path.parent)
        self.engine = Reconciler(fence, {"local": self.backend}, settings, lambda owner, wanted: {})

    def quiet(self) -> float:
        """CPU milliseconds of a tick in which nothing changes."""
        began = time.process_time()
        self.engine.tick()
        return 1000 * (time.process_time() - began)

    def busy(self) -> float:
        """CPU milliseconds of a tick in which `CHANGED` jobs change and are written."""
        self.backend.turn(self.changing)
        return self.quiet()

    def calls_a_tick(self) -> int:
        """How many calls the backend gets in a busy tick."""
        self.backend.calls.clear()
        self.busy()
        return self.backend.calls.total()


def measure(folder: Path, rounds: int = 9, jobs: int = 10_000) -> list[Figure]:
    """Medians over `rounds` ticks."""
    large, small = Bed(folder / "large.db", jobs), Bed(folder / "small.db", jobs // 100)
    quiet, busy = by_turns(rounds, large.quiet, large.busy)
    figures = [
        at_most(f"tick, {jobs} live jobs, nothing changed", quiet, "CPU ms", 100),
        at_most(f"tick, {jobs} live jobs, {CHANGED} changed", busy, "CPU ms", 100),
        at_most(f"compute calls a tick, {jobs} live jobs", large.calls_a_tick(), "calls", 1, small.calls_a_tick()),
    ]
    large.store.close()
    small.store.close()
    return figures

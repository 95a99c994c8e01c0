"""The engine over 2,000 managed jobs: CPU time of a tick with the look that it asks for, and the requests of a look.

SkyPilot is played from memory, so that what is measured is ours alone.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ainfinity.compute.remote.compute import SkyPilotCompute
from ainfinity.compute.remote.record import Record, Records
from ainfinity.compute.remote.rows import (
    ClusterRow,
    GivenRow,
    LogEnd,
    LogSource,
    ManagedRow,
    RequestRow,
    Sky,
)
from ainfinity.core.config import load_settings
from ainfinity.engine.fence import Fence
from ainfinity.engine.reconciler import Reconciler
from scripts.bench.measure import Figure, at_most
from scripts.bench.seed import make_store

#: What an attempt has written, so that each tick has a file to look at: as after some minutes.
_LOG = b'{"ainfinity": 1, "seq": 1, "kind": "started", "at": 1, "total_steps": 100}\n'
_PAUSE = 0.02


class PlayedSky:
    """Managed jobs that run, each on a cluster of its own. Counts what it is asked; nobody asks for a change."""

    def __init__(self, names: Sequence[str]) -> None:
        self.calls: Counter[str] = Counter()
        self._rows = [
            ManagedRow(number, name, "RUNNING", "", "1x H100:8", "slurm/a", 20.0, 0, f"{name}-{number}", started_at=1.0)
            for number, name in enumerate(names, 1)
        ]

    def clusters(self, names: Sequence[str] | None = None, *, refresh: bool = False) -> list[ClusterRow]:
        """There is none but those of managed jobs."""
        self.calls["clusters"] += 1
        return []

    def managed_jobs(self, *, ids: Sequence[int] | None = None, name: str = "", live: bool = False) -> list[ManagedRow]:
        """All of them run."""
        self.calls["managed_jobs"] += 1
        wanted = None if ids is None else set(ids)
        return [row for row in self._rows if (wanted is None or row.id in wanted) and name in row.name]

    def requests(self, cluster: str = "") -> list[RequestRow]:
        """None is under way."""
        self.calls["requests"] += 1
        return []

    def given(self, clusters: Sequence[str]) -> Mapping[str, GivenRow]:
        """Nobody asks: prices are known."""
        self.calls["given"] += 1
        return {name: GivenRow(name, "1x H100:8", 20.0) for name in clusters}


class NoFollower:
    """Logs are there and end never."""

    def follow(self, name: str, source: LogSource) -> None:
        """Do nothing."""

    def ended(self, name: str) -> LogEnd | None:
        """Not yet."""
        return None

    def drop(self, name: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class NoTransfer:
    """Nothing is to be brought home."""

    def verify(self, name: str, job_id: str, storage: str, files: Sequence[Mapping[str, Any]]) -> str:
        """All is well."""
        return ""

    def extend(self, name: str, cluster: str, deadline: float | None) -> None:
        """Do nothing."""


class Bed:
    """A store of running managed jobs, and the engine over SkyPilot's backend."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self.store = make_store(folder / "ainfinity.db", jobs, live=True, infra="slurm/a")
        settings = load_settings({}, data_dir=folder, config_dir=folder, poll=0.0, tick=0.0)
        with self.store.read() as connection:
            names = [str(row[0]) for row in connection.exec_driver_sql("SELECT name FROM attempt ORDER BY name")]
        records = Records(settings.attempts_dir)
        for number, name in enumerate(names, 1):
            cluster = f"{name}-{number}"
            record = Record(name, "managed", cluster=cluster, job_id=number, taken=True, seen=True, given="1x H100:8")
            record.priced, record.price_per_hour, record.billed_from = f"{cluster}#0", 20.0, 1.0
            records.write(record)
            (settings.attempts_dir / name / "log.txt").write_bytes(_LOG)
        self.sky = PlayedSky(names)
        compute = SkyPilotCompute(settings, None, cast(Sky, self.sky), NoFollower(), NoTransfer())
        fence = Fence(self.store, "bench", ttl=3600, renew_after=3600)
        if not fence.acquire():
            raise RuntimeError("the lease of a new store is taken")
        self.engine = Reconciler(fence, {"skypilot": compute}, settings, lambda owner, wanted: {})

    def ticks(self, count: int) -> Iterator[float]:
        """CPU milliseconds of ticks, each with the look that it asks for on another thread."""
        for _ in range(count):
            began = time.process_time()
            looks = self.sky.calls["clusters"]
            self.engine.tick()
            give_up = time.monotonic() + 5
            while self.sky.calls["clusters"] == looks and time.monotonic() < give_up:
                time.sleep(_PAUSE)
            time.sleep(_PAUSE)
            yield 1000 * (time.process_time() - began)

    def requests_a_look(self) -> float:
        """How many requests a look makes."""
        self.sky.calls.clear()
        list(self.ticks(9))
        return self.sky.calls.total() / self.sky.calls["clusters"]


def measure(folder: Path, rounds: int = 15, jobs: int = 2000) -> list[Figure]:
    """Medians over `rounds` ticks, after those in which everything is seen for the first time."""
    large, small = (Bed(folder / f"remote-{count}", count) for count in (jobs, jobs // 100))
    for bed in (large, small):
        list(bed.ticks(5))
    figures = [
        at_most(f"tick, {jobs} managed jobs", statistics.median(large.ticks(rounds)), "CPU ms", 50),
        at_most(
            f"requests a look, {jobs} managed jobs", large.requests_a_look(), "requests", 1.01, small.requests_a_look()
        ),
    ]
    large.store.close()
    small.store.close()
    return figures

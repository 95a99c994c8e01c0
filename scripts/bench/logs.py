"""How fast a log comes home, against SkyPilot's own stream of the same log in the same run.

It takes a cluster with a job on it that has ended: `python -m scripts.bench.logs CLUSTER JOB`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from ainfinity.compute.remote.follower import Followers
from ainfinity.compute.remote.rows import LogSource
from ainfinity.compute.skypilot import SkyPilot
from scripts.bench.measure import Figure, at_least, by_turns

_ROUNDS = 3
_PATIENCE = 600.0


def measure_following(cluster: str, job_id: int, folder: Path) -> list[Figure]:
    """Return lines a second into `log.txt`, against those that `tail_logs` delivers."""
    sky = SkyPilot()
    streamed = sum(1 for _ in sky.tail(cluster, job_id))
    turns = iter(range(1000))

    def bare() -> float:
        begun = time.perf_counter()
        assert sum(1 for _ in sky.tail(cluster, job_id)) == streamed
        return time.perf_counter() - begun

    def followed() -> float:
        place = folder / str(next(turns))
        followers = Followers(sky, place)
        begun = time.perf_counter()
        followers.follow("bench", LogSource("cluster", "", cluster, job_id))
        while followers.ended("bench") is None:
            if time.perf_counter() - begun > _PATIENCE:
                raise TimeoutError(f"the log of {cluster} took too long")
            time.sleep(0.01)
        taken = time.perf_counter() - begun
        followers.close()
        with (place / "bench" / "log.txt").open("rb") as log:
            assert sum(1 for _ in log) >= streamed
        return taken

    bare_seconds, followed_seconds = by_turns(_ROUNDS, bare, followed)
    name = f"log of {streamed:,} lines into log.txt against tail_logs"
    return [at_least(name, streamed / followed_seconds, "lines/s", 0.9, streamed / bare_seconds)]


def main() -> int:
    """Measure with the job that the arguments name."""
    with tempfile.TemporaryDirectory(prefix="ainfinity-bench-") as folder:
        (figure,) = measure_following(sys.argv[1], int(sys.argv[2]), Path(folder))
    print(f"{figure.name}: {figure.value:,.0f} {figure.unit}, {figure.ratio:.2f} × {'ok' if figure.ok else 'MISSED'}")
    return 0 if figure.ok else 1


if __name__ == "__main__":
    sys.exit(main())

"""On a real Slurm with a real SkyPilot API server: launches, cancels, memory and logs against bare SkyPilot.

Subject and control run the same task by turns. Without `slurm-loopback` (see `make e2e`) nothing of this is measured.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil
import yaml

from scripts.bench.measure import Figure, at_most
from tests.e2e.slurm.desk import Desk
from tests.e2e.slurm.loopback import PATIENCE, ROOT, Loopback, reason_to_fail, reason_to_skip, running_loopback

_LINES = 200_000
_MEASURE_LOGS = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from scripts.bench.logs import measure_following
print(json.dumps([asdict(one) for one in measure_following(sys.argv[1], 1, Path(sys.argv[2]) / "logs")]))
"""
_SCRIPT = "start()\nstep(1)\nwait('end')\nfinish()\n"


class Bench:
    """One desk, and a count by which jobs are named."""

    def __init__(self, loopback: Loopback, folder: Path) -> None:
        self.loopback = loopback
        self.desk = Desk(loopback, folder, "bench")
        self.count = 0

    def ours(self) -> tuple[float, float]:
        """Seconds from `ainfinity launch` to the first step, and from `ainfinity cancel` until all is gone."""
        self.count += 1
        name = f"ours-{self.count}"
        path = self.desk.job_file(name, self.desk.played(name, _SCRIPT))
        began = time.monotonic()
        job = self.desk.run("launch", str(path), "--yes").stdout.split()[-1]
        self.desk.reached(name, "end")
        first_step = time.monotonic() - began
        self.desk.until(job, "running")
        began = time.monotonic()
        self.desk.run("cancel", job)
        self.desk.until(job, "cancelled")
        gone = time.monotonic() - began
        if self.desk.slurm_jobs():
            raise RuntimeError("it was said to be gone and is not")
        return first_step, gone

    def bare(self) -> tuple[float, float]:
        """Seconds from `sky launch` of the same task to the same step, and what `sky down` takes."""
        self.count += 1
        name = f"bare-{self.count}"
        path = self.desk.job_file(name, self.desk.played(name, _SCRIPT))
        task = self.desk.ask("launch", str(path), "--dry-run")["task"]
        file = self.desk.root / f"{name}-task.yaml"
        file.write_text(yaml.safe_dump(task))
        cluster = f"{self.desk.mine}-{name}"
        began = time.monotonic()
        self.loopback.sky("launch", "--yes", "--detach-run", "--cluster", cluster, str(file))
        self.desk.reached(name, "end")
        first_step = time.monotonic() - began
        began = time.monotonic()
        self.loopback.sky("down", "--yes", cluster)
        return first_step, time.monotonic() - began

    def memory(self) -> list[Figure]:
        """The memory of a worker that looks after a job, over that of a process that has imported `sky`."""
        self.count += 1
        name = f"memory-{self.count}"
        job = self.desk.launch(name, self.desk.played(name, _SCRIPT))
        self.desk.reached(name, "end")
        self.desk.until(job, "running")
        (worker,) = [one for one in self.desk.processes() if "ainfinity.worker" in " ".join(one.cmdline())]
        used = worker.memory_info().rss / 2**20
        self.desk.run("cancel", job)
        self.desk.until(job, "cancelled")
        code = "import sky, sys; print('.', flush=True); sys.stdin.read()"
        pipe = subprocess.PIPE
        with subprocess.Popen([sys.executable, "-c", code], env=self.loopback.env, stdin=pipe, stdout=pipe) as process:
            assert process.stdout is not None
            process.stdout.readline()
            bare = psutil.Process(process.pid).memory_info().rss / 2**20
            process.communicate()
        return [at_most("memory of a worker over that of `import sky`", used - bare, "MiB", 150)]

    def logs(self) -> list[Figure]:
        """How fast a log comes home, against SkyPilot's own stream of it."""
        self.count += 1
        cluster = f"{self.desk.mine}-logs"
        file = self.desk.root / "lines.yaml"
        run = f"seq -f 'line %.0f of a log that is long enough to be one' 1 {_LINES}"
        file.write_text(yaml.safe_dump({"resources": {"infra": "slurm/loopback", "cpus": 1, "memory": 2}, "run": run}))
        self.loopback.sky("launch", "--yes", "--cluster", cluster, str(file))
        try:
            # In a process of its own, whose environment leads to this cluster.
            done = subprocess.run(
                [sys.executable, "-c", _MEASURE_LOGS, cluster, str(self.desk.root)],
                env=self.loopback.env,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                timeout=PATIENCE * 2,
            )
        finally:
            self.loopback.sky("down", "--yes", cluster)
        return [Figure(**one) for one in json.loads(done.stdout)]


def measure(folder: Path, rounds: int = 3) -> list[Figure]:
    """Medians over `rounds`, after one that fills caches."""
    if reason := reason_to_skip() or reason_to_fail():
        print(f"\nNOT MEASURED: {reason}\n", file=sys.stderr)
        return []
    with running_loopback() as loopback:
        bench = Bench(loopback, folder / "slurm")
        try:
            return [*_launches(bench, rounds), *bench.memory(), *bench.logs()]
        finally:
            if left := bench.desk.close():
                print(f"left behind, and taken down now: {left}", file=sys.stderr)


def _launches(bench: Bench, rounds: int) -> list[Figure]:
    bench.bare()
    ours, bare = zip(*((bench.ours(), bench.bare()) for _ in range(rounds)), strict=True)
    launch, gone = (statistics.median(times) for times in zip(*ours, strict=True))
    bare_launch, bare_down = (statistics.median(times) for times in zip(*bare, strict=True))
    return [
        at_most("launch to first step on Slurm", launch, "s", 1.1, bare_launch),
        at_most("cancel to machine confirmed gone on Slurm", gone, "s", 1.2, bare_down),
    ]

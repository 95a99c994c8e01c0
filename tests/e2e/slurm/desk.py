"""One person at a desk outside the cluster: a data folder of their own, the command line, and workers that may die."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml

from ainfinity.client.local import LocalClient
from ainfinity.core.config import Settings
from ainfinity.schema.actor import Actor
from ainfinity.schema.event import Event
from ainfinity.schema.states import JOB_TERMINAL
from ainfinity.schema.training_job import JobSpec
from ainfinity.schema.views import AttemptRow, JobDetail, JobRow
from ainfinity.services.changes import ChangeService
from ainfinity.services.training_service import TrainingService
from ainfinity.store import jobs
from ainfinity.store.store import open_store
from tests.e2e.slurm.loopback import PATIENCE, ROOT, Loopback, wait_for
from tests.engine.workshop import interpreter
from tests.services.workplace import write_chats

AINFINITY = str(Path(sys.executable).with_name("ainfinity"))
ANN = Actor("local:ann")
#: Seconds. What waits for a time in a test need not wait long.
QUICK = {"LEASE": "6", "RENEW": "2", "POLL": "2"}


class Desk:
    """A person's data folder and what they do with it. Waits are bounded by `PATIENCE` unless they say otherwise."""

    def __init__(self, loopback: Loopback, root: Path, label: str) -> None:
        self.loopback = loopback
        self.root = root
        self.settings = Settings(data_dir=root / "data", config_dir=root / "config")
        # No copy of a template: each desk is an installation of its own.
        self.store = open_store(self.settings)
        with self.store.read() as connection:
            self.installation = jobs.installation(connection)
        self.service = TrainingService(self.store, jobs_dir=self.settings.jobs_dir)
        self.changes = ChangeService(self.store)
        self.shared = loopback.share(f"{label}-{self.installation}")
        self.data = write_chats(root / "chats.jsonl")
        self.extra: dict[str, str] = {}
        self.mine = f"ain-{self.installation[:8]}"

    # --- what a person types

    def environment(self, **changes: str) -> dict[str, str]:
        """The environment of a front or worker at this desk."""
        folders = {"DATA_DIR": str(self.settings.data_dir), "CONFIG_DIR": str(self.settings.config_dir)}
        ours = {f"AINFINITY_{name}": value for name, value in (QUICK | folders).items()}
        return self.loopback.env | ours | self.extra | changes

    def run(self, *words: str, code: int | None = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Type an ainfinity command; `code` None takes any exit code."""
        done = subprocess.run(
            [AINFINITY, *words],
            env=self.environment(),
            cwd=self.root,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
        )
        said = f"ainfinity {' '.join(words)} exited {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert code is None or done.returncode == code, said
        assert "Traceback" not in done.stderr, said
        return done

    def ask(self, *words: str) -> Any:
        """The JSON answer to a command."""
        return json.loads(self.run(*words, "--json").stdout)

    def job_file(self, name: str, content: dict[str, Any]) -> Path:
        """Write a job file."""
        path = self.root / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"name": name} | content, sort_keys=False))
        return path

    def launch(self, name: str, content: dict[str, Any], *words: str) -> str:
        """Launch a job through the command line, which starts a worker, and return its id."""
        return self.run("launch", str(self.job_file(name, content)), "--yes", *words).stdout.split()[-1]

    def submit(self, name: str, content: dict[str, Any]) -> str:
        """Store a job without starting a worker, and return its id."""
        from ainfinity.schema.job_file import load

        spec: JobSpec = load(str(self.job_file(name, content)))
        client = LocalClient(self.store, self.settings, ANN, start_workers=False)
        return asyncio.run(client.submit(spec, f"key-{name}")).id

    # --- jobs to launch

    def played(self, name: str, script: str, **changes: Any) -> dict[str, Any]:
        """A job whose trainer plays `script` on the machine; `changes` by path with `__`, as `policy__retries`."""
        folder, control = self.root / f"model-{name}", self.control(name)
        folder.mkdir()
        (folder / "run.py").write_text(script)
        (folder / "control").write_text(str(control))
        control.mkdir(mode=0o777)
        control.chmod(0o777)
        player, python = self.shared / "player.py", self.shared / "python"
        player.write_text(Path(__file__).with_name("player.py").read_text())
        python.write_text(f"#!/bin/sh\nexec '{sys.executable}' -S '{player}' \"$@\"\n")
        python.chmod(0o755)
        content: dict[str, Any] = {
            "recipe": {"model": str(folder), "data": str(self.data)},
            "resources": {"infra": "slurm/loopback", "cpus": "1", "memory": "2", "python": str(python)},
        }
        return changed(content, changes)

    def local(self, name: str, script: str = "train()\nfinish()\n") -> dict[str, Any]:
        """A job for this machine, whose trainer plays `script`."""
        folder = self.root / f"model-{name}"
        folder.mkdir()
        (folder / "run.py").write_text(script)
        recipe = {"model": str(folder), "data": str(self.data)}
        return {"recipe": recipe, "resources": {"python": str(interpreter(self.root))}}

    def raw(self, run: str, **changes: Any) -> dict[str, Any]:
        """A SkyPilot task of a user."""
        task = {"resources": {"infra": "slurm/loopback", "cpus": 1, "memory": 2}, "run": run}
        return changed({"sky": task, "resources": {"infra": "slurm/loopback"}}, changes)

    def control(self, name: str) -> Path:
        """Where a played job and its test meet."""
        return self.shared / f"control-{name}"

    def reached(self, name: str, place: str) -> None:
        """Wait until a played job is at a place."""
        wait_for((self.control(name) / f"{place}.reached").exists, f"{name} to reach {place}")

    def go(self, name: str, place: str) -> None:
        """Let a played job that waits at a place go on."""
        (self.control(name) / place).touch()

    def runs(self, name: str) -> list[str]:
        """A line for each time that the trainer of a played job was started."""
        file = self.control(name) / "runs"
        return file.read_text().splitlines() if file.exists() else []

    # --- what became of them

    def row(self, job: str) -> JobRow:
        """The job."""
        return self.detail(job).job

    def detail(self, job: str) -> JobDetail:
        """Everything about the job."""
        return self.service.get_job_status(job)

    def attempt(self, job: str) -> AttemptRow:
        """Its newest attempt."""
        return self.detail(job).attempts[-1]

    def until(self, job: str, *states: str, patience: float = PATIENCE) -> JobRow:
        """Wait until the job is in one of the states; fail at once if it ended in another."""

        def look() -> JobRow | None:
            row = self.row(job)
            assert row.state in states or row.state not in JOB_TERMINAL, f"{row}\n{self.worker_log()}"
            return row if row.state in states else None

        try:
            return wait_for(look, f"{job} to be {states}", patience=patience)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.row(job)}\n{self.worker_log()}") from None

    def events(self, job: str) -> list[Event]:
        """All that happened to a job."""
        return list(self.changes.events(job, limit=100_000))

    def losses(self, job: str) -> dict[int, float]:
        """The loss of each step, as our store has it; of a step that was done twice, the later."""
        points = self.changes.metrics(job)
        return {point.step: point.values["loss"] or 0.0 for point in points}

    def worker_log(self) -> str:
        """The end of what the worker has to say."""
        log = self.settings.data_dir / "worker.log"
        return log.read_text()[-4000:] if log.exists() else "(no worker log)"

    def slurm_jobs(self) -> list[str]:
        """The names of this person's jobs in Slurm's queue, however started."""
        return [job.name for job in self.loopback.squeue(self.mine)]

    # --- workers

    def worker(self, *, step: str = "", hit: int = 1, **environment: str) -> subprocess.Popen[bytes]:
        """Start a worker that waits for its turn; with `step` it dies by kill -9 at the `hit`-th passing of it."""
        words = ["-c", DYING, step, str(hit)] if step else ["-m", "ainfinity.worker"]
        out = (self.settings.data_dir / "worker.out").open("ab")
        with out:
            return subprocess.Popen(
                [sys.executable, *words],
                env=self.environment(PYTHONPATH=str(ROOT)) | environment,
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def processes(self) -> Iterator[psutil.Process]:
        """What runs here with this data folder in its environment: workers, supervisors, trainers of local jobs."""
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and process.environ().get("AINFINITY_DATA_DIR") == str(
                    self.settings.data_dir
                ):
                    yield process
            except psutil.Error:
                continue

    def kill_workers(self) -> None:
        """Kill -9 every worker of this desk, with the processes that it made for itself."""
        for process in list(self.processes()):
            if "ainfinity.worker" in " ".join(process.cmdline()):
                process.send_signal(signal.SIGKILL)
                process.wait(PATIENCE)

    def close(self) -> list[str]:
        """End what this desk left, by pid and by name, and return what of it was still in the cluster."""
        for process in list(self.processes()):
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        self.store.close()
        left = self.slurm_jobs()
        if left:
            for name in self.loopback.live_managed(self.mine):
                self.loopback.sky("jobs", "cancel", "--yes", "--name", name, check=False)
            names = self.loopback.clusters(self.mine)
            if names:
                self.loopback.sky("down", "--yes", *names, check=False)
            for job in self.loopback.squeue(self.mine):
                self.loopback.exec("scancel", str(job.id))
            give_up = time.monotonic() + 60
            while self.slurm_jobs() and time.monotonic() < give_up:
                time.sleep(0.5)
        return left


def changed(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a job file's content with values set by path, as `policy__retries=1`."""
    for path, value in changes.items():
        *parents, last = path.split("__")
        inner = content
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return content


#: A worker as `ainfinity.worker` makes it, but for a probe.
DYING = """
import functools, os, signal, sys
from ainfinity import worker
step, hit = sys.argv[1], int(sys.argv[2])
passed = 0
def probe(name):
    global passed
    passed += name == step
    if passed == hit:
        os.kill(os.getpid(), signal.SIGKILL)
worker.Worker = functools.partial(worker.Worker, probe=probe)
sys.exit(worker.main([]))
"""

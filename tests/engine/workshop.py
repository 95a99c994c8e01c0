"""A data folder with jobs whose trainers are short scripts, and an engine over it: in this process or a real worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from ainfinity.compute.local import LocalCompute
from ainfinity.compute.port import Compute
from ainfinity.core.config import Settings
from ainfinity.core.constants import ATTEMPT_MARK
from ainfinity.core.exceptions import AinfinityError, NotFound
from ainfinity.engine.fence import Fence
from ainfinity.engine.outbox import FileNotifier, Notifier, Outbox
from ainfinity.engine.reconciler import Probe, Reconciler, no_probe
from ainfinity.schema.training_job import JobSpec
from ainfinity.services.training_service import TrainingService
from ainfinity.store import lease
from tests.services.workplace import ADMIN, Workplace

TRAINER = Path(__file__).with_name("trainer.py")
#: Far more than anything takes, for a machine that is busy with other things.
PATIENCE = 60.0


def wait_for(condition: Callable[[], Any], what: str = "", pause: float = 0.02) -> Any:
    """Return the first true answer of `condition`."""
    give_up = time.monotonic() + PATIENCE
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < give_up, f"waited in vain for {what or condition}"
        time.sleep(pause)


@dataclass
class ShiftedClock:
    """The machine's clock, moved on by a test."""

    ahead: float = 0.0

    def now(self) -> float:
        return time.time() + self.ahead

    def move(self, seconds: float) -> None:
        self.ahead += seconds


def interpreter(folder: Path) -> Path:
    """Return an executable that stands for a Python with the trainer's packages."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\nexec '{sys.executable}' -S -E '{TRAINER}' \"$@\"\n")
    path.chmod(0o755)
    return path


@dataclass
class Workshop(Workplace):
    """A workplace whose jobs really run."""

    clock: Any = field(default_factory=ShiftedClock)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.python = interpreter(self.root)
        self.secrets: dict[str, str] = {}
        self.workers: list[int] = []

    def control(self, name: str) -> Path:
        return self.root / "control" / name

    def scripted(self, name: str, script: str = "train()\nfinish()\n", **changes: Any) -> JobSpec:
        """A job that plays `script`; `attempts` gives scripts of their own to attempts by number."""
        folder = self.control(name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.py").write_text(script)
        for number, text in changes.pop("attempts", {}).items():
            (folder / f"attempt-{number}.py").write_text(text)
        changes = {"recipe__model": str(folder), "resources__python": str(self.python)} | changes
        return self.spec(name, **changes)

    def submit(self, name: str = "first", script: str = "train()\nfinish()\n", **changes: Any) -> str:
        spec = self.scripted(name, script, **changes)
        self.keys += 1
        return self.service.launch_job(spec, f"key-{self.keys}", ADMIN).id

    def reached(self, name: str, place: str) -> int:
        """Wait until the script of a job is at a place and return its pid."""
        file = self.control(name) / f"{place}.reached"
        return int(wait_for(lambda: file.exists() and file.read_text(), f"{name} to reach {place}"))

    def go(self, name: str, place: str) -> None:
        (self.control(name) / place).touch()

    def engine(self, compute: Compute | None = None, probe: Probe = no_probe, **given: Any) -> Engine:
        return Engine(self, compute or LocalCompute(self.settings, self.clock), probe, **given)

    def attempt(self, job: str) -> Any:
        return self.service.get_job_status(job).attempts[-1]

    def log(self, job: str) -> Path:
        return self.settings.attempts_dir / self.attempt(job).name / "log.txt"

    def supervisor(self, job: str) -> int:
        claim = self.settings.attempts_dir / self.attempt(job).name / "claim.json"
        return int(json.loads(wait_for(lambda: claim.exists() and claim.read_text(), "the claim"))["pid"])

    def environment(self) -> dict[str, str]:
        """The environment of a worker or front of this data folder, with everything in it quick."""
        quick = {"TICK": "0.1", "LEASE": "2.0", "RENEW": "0.5", "GRACE": "1.0", "STOP_GRACE": "2.0"}
        folders = {"DATA_DIR": str(self.settings.data_dir), "CONFIG_DIR": str(self.settings.config_dir)}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AINFINITY_")}
        return kept | {f"AINFINITY_{name}": value for name, value in (quick | folders).items()}

    def start_worker(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        worker = subprocess.Popen(
            [sys.executable, "-m", "ainfinity.worker", *(arguments or ("--until-idle",))],
            env=self.environment() | environment,
            stderr=subprocess.PIPE,
        )
        self.workers.append(worker.pid)
        return worker

    def alive(self) -> list[int]:
        """Every process of an attempt of this data folder, by its mark or its command line."""
        found: list[int] = []
        for process in psutil.process_iter():
            try:
                marked = process.environ().get(ATTEMPT_MARK, "")
                mine = str(self.settings.data_dir) in " ".join(process.cmdline()) or marked in self.names()
                if mine and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    def working(self) -> list[int]:
        """The worker that a front has started, which has the lease."""
        try:
            with self.store.read() as connection:
                holder = lease.status(connection, "engine").holder
            pid = int(holder.split(":")[1]) if ":" in holder else 0
            return [pid] if pid and "ainfinity.worker" in psutil.Process(pid).cmdline() else []
        except (AinfinityError, psutil.Error):  # some tests damage the database
            return []

    def names(self) -> set[str]:
        folder = self.settings.attempts_dir
        return {path.name for path in folder.iterdir() if path.name.startswith("ain-")} if folder.exists() else set()

    def clear(self) -> None:
        """End whatever the test left, by pid."""
        for pid in (*self.workers, *self.working(), *self.alive()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.store.close()


class Engine:
    """What a worker runs, a tick at a time."""

    def __init__(self, shop: Workshop, compute: Compute, probe: Probe = no_probe, holder: str = "engine") -> None:
        self.shop = shop
        self.compute = compute
        self.fence = Fence(shop.store, holder, ttl=10.0, renew_after=3.0)
        self.reconciler = Reconciler(self.fence, {compute.name: compute}, shop.settings, self.find_secrets, probe)
        file = FileNotifier(shop.settings.data_dir / "notices.jsonl")
        self.notifiers: dict[str, Notifier] = {"file": file}
        self.outbox = Outbox(self.fence, self.notifiers, probe)

    def find_secrets(self, owner: str, names: Iterable[str]) -> dict[str, str]:
        for name in names:
            if name not in self.shop.secrets:
                raise NotFound(f"There is no stored secret {name}.")
        return {name: self.shop.secrets[name] for name in names}

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.fence.must_hold()
            self.reconciler.tick()
            self.outbox.run()

    def __enter__(self) -> Engine:
        assert self.fence.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        return

    def until(self, job: str, *states: str) -> str:
        """Tick until the job is in one of the states and return that."""

        def look() -> str:
            self.tick()
            state = self.shop.row(job).state
            return state if state in states else ""

        return wait_for(look, f"{job} to be {states}; it is {self.shop.row(job)}")


def shop_settings(root: Path, **changes: Any) -> Settings:
    settings = Settings(data_dir=root / "data", config_dir=root / "config", stop_grace=2.0, local_slots=4)
    return replace(settings, **changes)


__all__ = ["PATIENCE", "Engine", "ShiftedClock", "TrainingService", "Workshop", "shop_settings", "wait_for"]

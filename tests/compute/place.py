"""A data folder of one test and the real processes in it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ainfinity.compute.folder import AttemptFolder
from ainfinity.compute.local import LocalCompute
from ainfinity.compute.port import LaunchRequest
from ainfinity.core.config import Settings
from ainfinity.domain.observation import Observation, Phase

ACTOR = Path(__file__).with_name("actor.py")
NAME = "ain-0a1b2c3d-abcdefghij-a1"
#: Far more than anything takes, for a machine that is busy with other things.
PATIENCE = 60.0


def wait_for(condition: Callable[[], Any], what: str = "") -> Any:
    """Return the first true answer of `condition`."""
    give_up = time.monotonic() + PATIENCE
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < give_up, f"waited in vain for {what or condition}"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass
class ManualClock:
    """The system's clock, moved on by hand."""

    ahead: float = 0.0

    def now(self) -> float:
        return time.time() + self.ahead


@dataclass
class Place:
    """Makes backends on one data folder, requests for attempts in it, and says what truly runs."""

    root: Path
    grace: float = 1.0
    slots: int = 8
    data: Path | None = None
    clock: ManualClock = field(default_factory=ManualClock)
    names: set[str] = field(default_factory=set[str])

    @property
    def settings(self) -> Settings:
        data = self.data or self.root / "data"
        return Settings(data_dir=data, config_dir=self.root / "config", stop_grace=self.grace, local_slots=self.slots)

    def backend(self, **changes: Any) -> LocalCompute:
        """A new backend, as a new worker makes it."""
        given = {"command": self.command, "modules": (), "devices": ()} | changes
        return LocalCompute(self.settings, self.clock, **given)

    @staticmethod
    def command(request: LaunchRequest, recipe: Path) -> list[str]:
        return [sys.executable, "-S", "-E", str(ACTOR), str(recipe)]

    def request(self, name: str = NAME, *, recipe: dict[str, Any] | None = None, **changes: Any) -> LaunchRequest:
        self.names.add(name)
        self.control(name).mkdir(parents=True, exist_ok=True)
        given = {
            "job_id": "abcdefghij",
            "attempt": 1,
            "recipe": {"control": str(self.control(name)), **(recipe or {})},
            "output_dir": str(self.root / "jobs" / "output"),
            "checkpoint_dir": str(self.root / "jobs" / "checkpoints"),
        }
        return LaunchRequest(name=name, **(given | changes))

    def control(self, name: str = NAME) -> Path:
        return self.root / "control" / name

    def folder(self, name: str = NAME) -> Path:
        return self.settings.attempts_dir / name

    def notes(self, kind: str, name: str = NAME) -> list[str]:
        """What the attempt noted: `pids`, `starts` or `signals`."""
        file = self.control(name) / kind
        return file.read_text().split() if file.exists() else []

    def alive(self, name: str = NAME) -> list[int]:
        """The attempt's own processes that are alive, by what they noted themselves."""
        return [pid for pid in map(int, self.notes("pids", name)) if is_alive(pid)]

    def finish(self, code: int = 0, name: str = NAME) -> None:
        aside = self.control(name) / "finish.new"
        aside.write_text(str(code))
        aside.rename(self.control(name) / "finish")

    def started(self, name: str = NAME) -> None:
        wait_for(lambda: self.notes("starts", name), f"the start of {name}")

    def supervisor(self, name: str = NAME) -> int:
        return int(json.loads((self.folder(name) / "claim.json").read_text())["pid"])

    def see(self, compute: LocalCompute, name: str = NAME) -> Observation | None:
        return compute.observe_all().get(name)

    def until_over(self, compute: LocalCompute, name: str = NAME) -> Observation:
        def look() -> Observation | None:
            seen = self.see(compute, name)
            return seen if seen is not None and not seen.machine else None

        return wait_for(look, f"the end of {name}")

    def until(self, compute: LocalCompute, phase: Phase, name: str = NAME) -> Observation:
        def look() -> Observation | None:
            seen = self.see(compute, name)
            return seen if seen is not None and seen.phase == phase else None

        return wait_for(look, f"{phase} of {name}")

    def clear(self) -> None:
        """End whatever the test left: its processes are those whose command line names its folder."""
        for name in self.names:
            with contextlib.suppress(OSError):
                AttemptFolder(self.folder(name)).abandon("the test is over")
        wait_for(lambda: not self._kill())

    def _kill(self) -> list[int]:
        found = [process.pid for process in psutil.process_iter() if f"{self.root}/" in _command_line(process)]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return found


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def run_python(code: str, *argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a piece of Python in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=PATIENCE, check=True, **options
    )


__all__ = ["ACTOR", "NAME", "ManualClock", "Place", "is_alive", "run_python", "wait_for"]

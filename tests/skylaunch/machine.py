"""Runs a rendered task's scripts as SkyPilot does on a node: in an interactive bash, which sources them from a file."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

ATTEMPT = "ain-0a1b2c3d-abcdefghij-a1"
#: Far more than anything takes, for a machine that is busy with other things. Seconds.
PATIENCE = 60.0


class Node:
    """A folder that plays the home on a machine, with a script where the interpreter would be."""

    def __init__(self, home: Path, interpreter: str) -> None:
        self.home = home
        self.home.mkdir(parents=True, exist_ok=True)
        self.python = home / "bin" / "python"
        self.python.parent.mkdir(exist_ok=True)
        self.python.write_text(interpreter)
        self.python.chmod(self.python.stat().st_mode | stat.S_IXUSR)
        self.folder = home / ".ainfinity" / "attempts" / ATTEMPT
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, script: str, envs: Mapping[str, Any], *, rank: int = 0, nodes: int = 1) -> subprocess.Popen[bytes]:
        """Run a script as the task's `setup` or `run`, with quick looks at the deadline."""
        file = self.home / f"task-{rank}.sh"
        file.write_text(f"#!/bin/bash\n[ -f ~/.bashrc ] && source ~/.bashrc\ncd ~\n{script}\n")
        given = {
            "SKYPILOT_NUM_NODES": str(nodes),
            "SKYPILOT_NODE_RANK": str(rank),
            "SKYPILOT_NODE_IPS": "\n".join(f"10.0.0.{node}" for node in range(1, nodes + 1)),
            "SKYPILOT_NUM_GPUS_PER_NODE": "1",
        }
        quick = {"AINFINITY_POLL": "1", "AINFINITY_GRACE": "1", "AINFINITY_NOTICE": "0"}
        env = {"HOME": str(self.home), "PATH": os.defpath, **given, **envs, **quick}
        task = subprocess.Popen(
            ["/bin/bash", "-i", str(file)],
            cwd=self.home,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.started.append(task)
        return task

    def run(self, script: str, envs: Mapping[str, Any], **options: int) -> tuple[int, str]:
        """Run a script to its end; return its exit code and what it said."""
        return finish(self.start(script, envs, **options))

    def says(self, name: str) -> str:
        """What was written to a file in the home."""
        file = self.home / name
        return file.read_text() if file.exists() else ""

    def alive(self) -> list[int]:
        """The processes whose environment names this home: all that the task started, and its guard."""
        found: list[int] = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("HOME") == str(self.home) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    def clear(self) -> None:
        """End whatever is left."""
        for pid in self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for task in self.started:
            finish(task)


def finish(task: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Wait for a task; return its exit code and what it said."""
    output, _ = task.communicate(timeout=PATIENCE)
    return task.returncode, output.decode()


def wait_for(condition: Any, what: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, f"waited in vain for {what}"
        time.sleep(0.02)

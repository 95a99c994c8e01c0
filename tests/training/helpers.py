from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.protocol import Line, parse_line

ROOT = Path(__file__).resolve().parents[2]
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CPU = {
    "DS_ACCELERATOR": "cpu",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "PYTHONPATH": str(ROOT),
    "PYTHONSAFEPATH": "1",
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
}
PATIENCE = 240.0  # seconds; a bound for a machine that is much slower, never waited for in full


@dataclass
class Running:
    """Ranks that were started, and what they have written."""

    server: Server
    pids: list[int]
    stdout: Path
    stderr: Path
    codes: list[int] = field(default_factory=list[int])

    def lines(self) -> list[Line]:
        text = self.stdout.read_text() if self.stdout.exists() else ""
        return [line for line in map(parse_line, text.splitlines()) if line is not None]

    def wait_for(self, kind: str, count: int = 1) -> list[Line]:
        until = time.monotonic() + PATIENCE
        while len(found := of_kind(self.lines(), kind)) < count:
            assert time.monotonic() < until, self.stderr.read_text()
            time.sleep(0.02)
        return found

    def signal(self, number: signal.Signals) -> None:
        for pid in self.pids:
            os.kill(pid, number)

    def wait(self) -> Running:
        """Wait for rank 0; if it failed, end the others as torchrun would."""
        self.codes = [self.server.ask({"wait": self.pids[0]})["code"]]
        for pid in self.pids[1:]:
            if self.codes[0]:
                os.kill(pid, signal.SIGTERM)
            self.codes.append(self.server.ask({"wait": pid})["code"])
        return self


class Server:
    """Starts trainers by forking one process that has everything imported."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        script = Path(__file__).with_name("trainer_server.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script)],
            env=os.environ | CPU,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()

    def start(
        self,
        recipe: dict[str, Any],
        folder: Path,
        *overrides: str,
        world: int = 2,
        env: dict[str, str] | None = None,
        file_limit: int | None = None,
    ) -> Running:
        self._count += 1
        path, stdout, stderr = (self._folder / f"{self._count}.{name}" for name in ("json", "stdout", "stderr"))
        path.write_text(json.dumps(recipe))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **(env or {})}
        argv = [str(path), *overrides, "--output", str(folder)]
        ranks = [
            {
                "argv": argv,
                "env": {"RANK": str(rank), "LOCAL_RANK": str(rank), **shared},
                "cwd": str(self._folder),
                "stdout": str(stdout),
                "stderr": str(stderr),
                "file_limit": file_limit,
            }
            for rank in range(world)
        ]
        return Running(self, self.ask({"ranks": ranks})["pids"], stdout, stderr)

    def run(self, recipe: dict[str, Any], folder: Path, *overrides: str, **options: Any) -> Running:
        return self.start(recipe, folder, *overrides, **options).wait()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=PATIENCE)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def chat(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def of_kind(lines: list[Line], kind: str) -> list[Line]:
    return [line for line in lines if line.kind == kind]


def losses(lines: list[Line]) -> dict[int, float]:
    return {line.data["step"]: line.data["loss"] for line in of_kind(lines, "step")}


RecipeMaker = Callable[..., dict[str, Any]]


def finished(run: Running) -> dict[str, Any]:
    assert set(run.codes) == {0}, run.stderr.read_text()
    last = run.lines()[-1]
    assert last.kind == "finished"
    return last.data


def failure(run: Running, code: str, exit_code: int) -> str:
    """The message and hint of the `failed` line that ended the run."""
    assert run.codes[0] == exit_code, run.stderr.read_text()
    last = run.lines()[-1]
    assert (last.kind, last.data["code"]) == ("failed", code), run.stderr.read_text()
    assert "Traceback" not in run.stdout.read_text()
    return f"{last.data['message']} {last.data['hint']}"

"""What tests run as the trainer's interpreter: it answers for the packages, and plays the script in the model's folder.

The script is Python, `attempt-N.py` or else `run.py`, and has the functions below at hand. Everything else is real: the
worker, the supervisor, the log, the signals.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


class Script:
    """The functions that a script may call, and what it may know."""

    def __init__(self, arguments: list[str]) -> None:
        recipe = next(Path(word) for word in arguments if word.endswith("recipe.json"))
        self.control = Path(json.loads(recipe.read_text())["model"])
        self.output = Path(arguments[arguments.index("--output") + 1])
        self.checkpoints = Path(arguments[arguments.index("--checkpoints") + 1])
        self.attempt = os.environ["AINFINITY_ATTEMPT"]
        self.number = int(self.attempt.rpartition("-a")[2])
        self.seq = 0

    def say(self, kind: str, **data: Any) -> None:
        self.seq += 1
        line = {"ainfinity": 1, "seq": self.seq, "kind": kind, "at": time.time(), **data}
        os.write(1, json.dumps(line).encode() + b"\n")

    def write(self, text: str | bytes) -> None:
        os.write(1, text.encode() if isinstance(text, str) else text)

    def start(self, **data: Any) -> None:
        self.say("started", total_steps=8, **data)

    def step(self, number: int) -> None:
        self.say("step", step=number, total_steps=8, loss=4.0 / number, lr=1e-4, step_seconds=0.1)

    def checkpoint(self, step: int) -> None:
        folder = self.checkpoints / f"step-{step:06}"
        folder.mkdir(parents=True)
        (folder / "COMPLETED").write_text("{}")
        self.say("checkpoint", step=step, path=str(folder), seconds=0.1)

    def newest(self) -> int:
        return max((int(path.name.removeprefix("step-")) for path in self.checkpoints.glob("step-*")), default=0)

    def finish(self, content: bytes = b"weights") -> None:
        """Export as the trainer does, with paths relative to the export's folder."""
        folder = self.output / "adapter"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_model.safetensors").write_bytes(content)
        entry = {
            "path": "adapter_model.safetensors",
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        self.say("finished", step=8, loss=0.5, output=str(folder), files=[entry], seconds=1.0)

    def train(self, to: int = 8) -> None:
        """All of a short run, from where the last attempt stopped."""
        first = self.newest()
        self.start(resumed_step=first or None)
        for number in range(first + 1, to + 1):
            self.step(number)
            if number % 4 == 0:
                self.checkpoint(number)

    def wait(self, name: str) -> None:
        """Tell that this place is reached, and wait for the test's word."""
        (self.control / f"{name}.reached").write_text(f"{os.getpid()}")
        while not (self.control / name).exists():
            time.sleep(0.01)


def main() -> None:
    if "-c" in sys.argv:  # which packages are missing?
        print(json.dumps([[3, 11], []]))
        return
    script = Script(sys.argv)
    file = script.control / f"attempt-{script.number}.py"
    file = file if file.exists() else script.control / "run.py"
    names = {name: getattr(script, name) for name in dir(script) if not name.startswith("_")}
    exec(compile(file.read_text(), str(file), "exec"), names | {"os": os, "sys": sys, "time": time})


if __name__ == "__main__":
    main()

"""What tests give as `python:`: it answers for the packages, and plays the script `run.py` that lies in the model.

It runs on the machine, with nothing of this repository but the `training` that travelled with the job: the claim, the
protocol and the verification are the real ones, only the model is not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any


class Script:
    """The functions that a script may call, and what it may know. Rank 0 alone plays; another node waits for it."""

    def __init__(self, arguments: list[str]) -> None:
        from training.claim import ClaimedFolder
        from training.protocol import SEQ_BITS, Emitter
        from training.stopping import StopRequest

        recipe = next(Path(word) for word in arguments if "/recipe-" in word)
        self.model = Path(os.path.expanduser(json.loads(recipe.read_text())["model"]))
        self.output = Path(arguments[arguments.index("--output") + 1])
        self.checkpoints = Path(arguments[arguments.index("--checkpoints") + 1])
        self.attempt, self.task = os.environ["AINFINITY_ATTEMPT"], os.environ["SKYPILOT_TASK_ID"]
        self.control = Path((self.model / "control").read_text())
        self.claim = ClaimedFolder(self.checkpoints, self.attempt, self.task).claim
        self.emitter = Emitter(1, base=self.claim.restarts << SEQ_BITS)
        self.stop = StopRequest()
        self.stop.install()
        self.stop.act_at_once(lambda: self.say("stopped", step=self.newest(), reason="sigterm", checkpoint=None))
        with (self.control / "runs").open("a") as runs:
            runs.write(f"{self.attempt} {self.task} {os.uname().nodename}\n")

    def say(self, kind: str, **data: Any) -> None:
        self.emitter.emit(kind, **data)

    def start(self, **data: Any) -> None:
        self.say("started", total_steps=8, **data)

    def step(self, number: int) -> None:
        self.say("step", step=number, total_steps=8, loss=4.0 / number, lr=1e-4, step_seconds=0.1)

    def newest(self) -> int:
        return max((int(path.name.removeprefix("step-")) for path in self.checkpoints.glob("step-*")), default=0)

    def finish(self, content: bytes = b"weights") -> None:
        """Export as the trainer does, with paths relative to the export's folder."""
        folder = self.output / "adapter"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_model.safetensors").write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        entry = {"path": "adapter_model.safetensors", "size": len(content), "sha256": sha256}
        self.say("finished", step=8, loss=0.5, output=str(folder), files=[entry], seconds=1.0)

    def wait(self, name: str) -> None:
        """Tell that this place is reached, and wait for the test's word."""
        (self.control / f"{name}.reached").write_text(str(os.getpid()))
        while not (self.control / name).exists():
            time.sleep(0.05)


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[0] == "-c":  # which packages are missing?
        return
    if arguments[:2] == ["-m", "training.verify"]:
        sys.argv = arguments[1:]
        sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)
        runpy.run_module("training.verify", run_name="__main__")
        return
    if arguments[arguments.index("--node_rank") + 1] != "0":
        return
    script = Script(arguments)
    names = {name: getattr(script, name) for name in dir(script) if not name.startswith("_")}
    file = script.model / "run.py"
    exec(compile(file.read_text(), str(file), "exec"), names | {"os": os, "sys": sys, "time": time})


if __name__ == "__main__":
    main()

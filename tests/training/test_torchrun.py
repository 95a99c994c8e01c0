"""The command that a worker runs, as it runs it: torchrun, two ranks, in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.training.helpers import CPU, PATIENCE, Server, losses, of_kind
from training.protocol import Line, parse_line

SHADOW = "raise RuntimeError('the user has a folder called training too')"


def torchrun(recipe: dict[str, Any], folder: Path, attempt: str) -> subprocess.Popen[str]:
    (folder / "training").mkdir(parents=True, exist_ok=True)
    (folder / "training" / "__init__.py").write_text(SHADOW)
    (folder / "recipe.json").write_text(json.dumps(recipe))
    command = ["torchrun", "--standalone", "--nproc_per_node", "2", "-m", "training.finetune"]
    return subprocess.Popen(
        [*command, "recipe.json", "--output", "out"],
        cwd=folder,
        env=os.environ | CPU | {"AINFINITY_ATTEMPT": attempt},
        stdout=(folder / "stdout").open("a"),
        stderr=(folder / "stderr").open("a"),
        text=True,
    )


def lines(folder: Path) -> list[Line]:
    """What stdout holds, every line of which must be of the protocol."""
    found = [parse_line(text) for text in (folder / "stdout").read_text().splitlines(keepends=True) if text[-1] == "\n"]
    assert None not in found
    return [line for line in found if line is not None]


def test_a_run_cut_by_sigterm_and_started_again_is_one_run(
    trainer: Server, tiny_recipe: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    recipe = tiny_recipe(max_steps=60)
    whole = trainer.run(recipe, tmp_path / "whole")
    folder = tmp_path / "cut"
    first = torchrun(recipe, folder, "job-a1")
    until = time.monotonic() + PATIENCE
    while len(losses(lines(folder))) < 3:
        assert first.poll() is None, (folder / "stderr").read_text()
        assert time.monotonic() < until
        time.sleep(0.02)
    asked_at = time.monotonic()
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=PATIENCE) == 1  # torchrun's own code, whatever its ranks do
    assert time.monotonic() - asked_at < 30  # when it would have killed them
    stopped = lines(folder)[-1]
    assert stopped.kind == "stopped"
    assert stopped.data["step"] < 60

    assert torchrun(recipe, folder, "job-a1").wait(timeout=PATIENCE) == 0, (folder / "stderr").read_text()
    everything = lines(folder)
    assert [line.seq for line in everything] == sorted({line.seq for line in everything})
    assert of_kind(everything, "started")[1].data["resumed_step"] == stopped.data["step"]
    assert losses(everything) == losses(whole.lines())
    assert everything[-1].kind == "finished"
    assert Path(everything[-1].data["output"]) == folder / "out" / "model"


def test_a_fault_of_the_user_is_one_failed_line(tiny_recipe: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text("{\n")
    run = torchrun(tiny_recipe(data="d.jsonl"), tmp_path, "job-a1")
    assert run.wait(timeout=PATIENCE) == 1
    (failed,) = lines(tmp_path)
    assert (failed.kind, failed.data["code"], failed.data["rank"]) == ("failed", "data_invalid", 0)
    assert f"{tmp_path}/d.jsonl:1" in failed.data["message"]

"""The same with the real torchrun: its ranks live in sessions of their own and get their SIGTERM from it."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path

import psutil
import pytest

from ainfinity.compute.port import LaunchRequest
from ainfinity.compute.trainer import torchrun_command
from ainfinity.domain.observation import Phase
from tests.compute.place import Place, is_alive, wait_for

RANK = """
import os, pathlib, signal, sys, time
control = pathlib.Path(os.environ["CONTROL"])
def note(kind, text):
    with (control / kind).open("a") as file:
        file.write(f"{text}\\n")
def on_term(*_):
    note("signals", "rank" + os.environ["RANK"])
    end = time.monotonic() + 0.5  # saving; a second signal would be noted meanwhile
    while time.monotonic() < end:
        time.sleep(0.05)
    note("saved", os.environ["RANK"])
    os._exit(76)
signal.signal(signal.SIGTERM, on_term)
note("pids", os.getpid())
time.sleep(600)
"""


def command(request: LaunchRequest, recipe: Path) -> list[str]:
    """Our own command line, with another program in the trainer's place."""
    words = torchrun_command(request, recipe)
    program = recipe.with_name("rank.py")
    program.write_text(RANK)
    return [*words[: words.index("training.finetune") - 1], str(program)]


def test_the_command_line() -> None:
    request = LaunchRequest("n", "j", 1, {}, "/o ut", "/c;k", ranks=2, python="/venv/bin/python")
    words = torchrun_command(request, Path("/r/recipe.json"))
    assert words[0] == "/venv/bin/python"
    assert words[1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    assert words[6:] == [*["-m", "training.finetune", "/r/recipe.json", "--output"], "/o ut", "--checkpoints", "/c;k"]


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_stop_saves_on_every_rank_and_a_lost_launcher_leaves_none(place: Place) -> None:
    place.grace = 30.0
    compute = place.backend(command=command)
    for name in ("stopped", "lost"):
        compute.launch(place.request(name, ranks=2, env={"CONTROL": str(place.control(name))}))
    for name in ("stopped", "lost"):
        wait_for(lambda name=name: len(place.notes("pids", name)) == 2, f"the ranks of {name}")
        ranks = place.alive(name)
        assert [os.getsid(pid) for pid in ranks] == ranks, "torchrun starts each rank in a session of its own"

    compute.stop("stopped")
    launcher = psutil.Process(place.alive("lost")[0]).ppid()
    os.kill(place.supervisor("lost"), signal.SIGKILL)
    os.killpg(launcher, signal.SIGKILL)
    wait_for(lambda: not is_alive(launcher))
    assert len(place.alive("lost")) == 2, "control: killing torchrun's group leaves its ranks"
    assert place.until(compute, Phase.VANISHED, "lost").machine
    compute.stop("lost")
    compute.stop("lost")

    seen = place.until_over(compute, "stopped")
    assert (seen.phase, seen.reason) == (Phase.EXITED, "stopped")
    place.until_over(compute, "lost")
    for name in ("stopped", "lost"):
        assert sorted(place.notes("signals", name)) == ["rank0", "rank1"], f"{name}: each rank was told once"
        assert sorted(place.notes("saved", name)) == ["0", "1"]
        assert place.alive(name) == []

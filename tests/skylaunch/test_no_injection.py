"""Whatever a person writes into a job reaches the trainer as data and never a shell as a command.

The rendered scripts run in a real bash; a stub takes the interpreter's place and records what it is called with.
"""

from __future__ import annotations

import json
import os
import stat
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ainfinity.core.exceptions import InvalidSpec
from ainfinity.schema.training_job import JobSpec
from skylaunch.render import Launch, render_task
from training.recipe import parse_recipe

ATTEMPT = "ain-0a1b2c3d-abcdefghij-a1"
FOLDER = f".ainfinity/attempts/{ATTEMPT}"
ATTACKS = [
    "$(touch canary)",
    "`touch canary`",
    "; touch canary;",
    "' ; touch canary; '",
    '" ; touch canary; "',
    "\ntouch canary\n",
    "EOF\ntouch canary\nEOF",
    "${IFS}&&touch${IFS}canary",
    "| touch canary #",
    "--output=/etc\\",
    "a[$(touch canary)]",
    "!!",
]
# Lone surrogates cannot stand in JSON as UTF-8, so no job file holds one.
texts = st.one_of(st.sampled_from(ATTACKS), st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=60))
notes = texts.filter(lambda text: all(ord(character) >= 32 or character in "\n\t" for character in text))
tags = st.text(string.ascii_letters + "_.:=/-", min_size=1, max_size=20)
attacked_paths = texts.map(lambda text: "/" + text)


STUB = '#!/bin/sh\nprintf "%s\\0" "$@" >"$HOME/argv"\n'


class Machine:
    """A folder that plays the home on a node, with a stub where the interpreter would be."""

    def __init__(self, folder: Path) -> None:
        self.home = folder
        self.stub = folder / "python-stub"
        self.stub.write_text(STUB)
        self.stub.chmod(self.stub.stat().st_mode | stat.S_IXUSR)
        (folder / FOLDER).mkdir(parents=True)
        (folder / FOLDER / "python").write_text(f"{self.stub}\n")

    def run(self, script: str, environment: dict[str, str]) -> list[str]:
        """Run the script and return the arguments that the stub saw."""
        given_by_skypilot = {
            "SKYPILOT_NUM_NODES": "2",
            "SKYPILOT_NODE_RANK": "1",
            "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
            "SKYPILOT_NUM_GPUS_PER_NODE": "1",
        }
        env = {"HOME": str(self.home), "PATH": os.defpath, **given_by_skypilot, **environment, "AINFINITY_POLL": "1"}
        subprocess.run(["bash", "-c", script], env=env, cwd=self.home, check=True, capture_output=True, timeout=60)
        return (self.home / "argv").read_text().split("\0")[:-1]

    @property
    def harmed(self) -> bool:
        return any(path.name == "canary" for path in self.home.rglob("*"))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("node"))


def build(machine: Machine, recipe: dict[str, Any], **changes: Any) -> dict[str, Any]:
    resources = {"infra": "k8s", "gpus": "H100:4", "nodes": 2, "python": str(machine.stub)}
    spec = JobSpec.model_validate({"name": "chat", "recipe": recipe, "resources": resources, **changes})
    return render_task(spec, Launch(attempt=ATTEMPT, job_id="abcdefghij", trainer_dir="/opt/training", deadline=4e9))


@given(model=texts, data=texts, note=notes, tag=tags, prompts=st.lists(texts, max_size=3), target=texts)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_scripts_get_every_byte_and_run_none(
    machine: Machine, model: str, data: str, note: str, tag: str, prompts: list[str], target: str
) -> None:
    recipe = {"model": f"m{model}", "data": f"d{data}", "sample_prompts": prompts, "lora": {"targets": [target]}}
    task = build(machine, recipe, note=note, tags=[tag])
    argv = machine.run(task["run"], task["envs"])
    path, job = f"{machine.home}/{FOLDER}/recipe-1.json", f"{machine.home}/.ainfinity/jobs/abcdefghij"
    assert argv == [
        *("-m", "torch.distributed.run", "--nnodes", "2", "--node_rank", "1", "--nproc_per_node", "4"),
        *("--master_addr", "10.0.0.1", "--master_port", task["envs"]["AINFINITY_PORT"]),
        *("-m", "training.finetune", path, "--output", f"{job}/output", "--checkpoints", f"{job}/checkpoints"),
    ]
    assert parse_recipe(json.loads(Path(path).read_bytes())) == parse_recipe(recipe)
    assert not machine.harmed


@given(path=attacked_paths)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mounted_path_survives_the_quoting_of_skypilot(machine: Machine, path: str) -> None:
    try:
        task = build(machine, {"model": "org/model", "data": path})
    except InvalidSpec:
        return
    assert task["file_mounts"][f"~/{FOLDER}/inputs/data.jsonl"] == path
    shown = subprocess.run(["bash", "-c", f"printf %s {path!r}"], cwd=machine.home, capture_output=True, timeout=60)
    assert shown.stdout.decode() == path
    assert not machine.harmed


def test_scripts_are_the_same_for_every_job(machine: Machine) -> None:
    tasks = [build(machine, {"model": attack, "data": attack}) for attack in ATTACKS]
    assert len({(task["setup"], task["run"]) for task in tasks}) == 1
    for script in (tasks[0]["setup"], tasks[0]["run"]):
        subprocess.run(["bash", "-n", "-c", script], check=True)


def test_past_deadline_starts_nothing(machine: Machine) -> None:
    task = build(machine, {"model": "m", "data": "d"})
    with pytest.raises(subprocess.CalledProcessError) as failed:
        machine.run(task["run"], task["envs"] | {"AINFINITY_DEADLINE": "1000000000"})
    assert failed.value.returncode == 76


def test_control_naive_rendering_is_caught(tmp_path: Path) -> None:
    """The same machine, given a script that holds the model's name unquoted, is harmed: so the test can see harm."""
    machine = Machine(tmp_path)
    machine.run(f"{machine.stub} -m training.finetune model=$(touch canary)", {})
    assert machine.harmed


def test_control_repr_is_no_quoting(tmp_path: Path) -> None:
    """Why a path with a quote sign is refused: Python's repr of it is open to the shell."""
    path = "/it's $(touch canary)"
    subprocess.run(["bash", "-c", f"printf %s {path!r}"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "canary").exists()
    with pytest.raises(InvalidSpec, match="data"):
        build(Machine(tmp_path), {"model": "org/model", "data": path})


def test_rendering_needs_neither_skypilot_nor_torch() -> None:
    code = "import sys, skylaunch.render; print(sorted({'sky', 'torch', 'sqlmodel', 'textual'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"

"""Tasks as SkyPilot gets them: golden files, and what may not be sent."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ainfinity.core.exceptions import InvalidSpec
from ainfinity.schema.training_job import JobSpec, Resources
from skylaunch.places import BUCKET_MOUNT, find_places
from skylaunch.render import Launch, render_task, render_yaml
from skylaunch.templates import read_pins, read_scripts
from tests.skylaunch.cases import CASES, LAUNCH, changed

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"


def spec(**changes: Any) -> JobSpec:
    base = {"name": "chat", "recipe": {"model": "org/model", "data": "/d.jsonl"}, "resources": {"infra": "k8s"}}
    return JobSpec.model_validate(base | changes)


def launch(**changes: Any) -> Launch:
    return changed(changes)


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    content, changes = CASES[case]
    text = render_yaml(JobSpec.model_validate(content), launch(**changes))
    # The scripts and the pins are files of their own.
    for name, kind in (("setup.sh", "setup"), ("run.sh", "run")):
        script = yaml.safe_load(text)[kind]
        assert script == read_scripts(["guard.sh", name])
        text = text.replace(f"{kind}: |\n{textwrap.indent(script, '  ', str.strip)}", f"{kind}: guard.sh, {name}\n")
    text = text.replace(read_pins(), "pins.txt")
    path = GOLDEN / f"{case}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text(), "if the change is meant, run again with UPDATE_GOLDEN=1"


@pytest.mark.parametrize("case", CASES)
def test_yaml_is_the_task(case: str) -> None:
    content, changes = CASES[case]
    job = JobSpec.model_validate(content)
    assert yaml.safe_load(render_yaml(job, launch(**changes))) == render_task(job, launch(**changes))


def test_secrets_are_named_only() -> None:
    task = render_task(spec(secrets=["HF_TOKEN", "WANDB_API_KEY"]), LAUNCH)
    assert task["secrets"] == {"HF_TOKEN": None, "WANDB_API_KEY": None}
    assert not {"HF_TOKEN", "WANDB_API_KEY"} & set(task["envs"])


@pytest.mark.parametrize(
    "name", ["AINFINITY_RECIPE", "PATH", "LD_PRELOAD", "PYTHONPATH", "BASH_ENV", "SKYPILOT_NODE_IPS"]
)
def test_secret_that_would_change_the_start_is_refused(name: str) -> None:
    with pytest.raises(InvalidSpec, match=name):
        render_task(spec(secrets=[name]), LAUNCH)


def test_local_job_is_refused() -> None:
    with pytest.raises(InvalidSpec, match=r"resources\.infra"):
        render_task(spec(resources={}), LAUNCH)


@pytest.mark.parametrize("path", ["/a$(id)", "/a`id`", "/it's", '/a"b', "/a;b", "/a\nb", "relative"])
def test_unsafe_folder_is_refused(path: str) -> None:
    with pytest.raises(InvalidSpec):
        render_task(spec(), launch(trainer_dir=path))


@pytest.mark.parametrize("field", ["attempt", "job_id"])
@pytest.mark.parametrize("name", ["", "-a", "a b", "$(id)", "a\n", "../a", "A"])
def test_unsafe_name_is_refused(field: str, name: str) -> None:
    with pytest.raises(InvalidSpec):
        render_task(spec(), launch(**{field: name}))


def test_long_recipe_is_refused() -> None:
    recipe = {"model": "org/model", "data": "/d.jsonl", "sample_prompts": ["x" * 100_000]}
    with pytest.raises(InvalidSpec, match="sample_prompts"):
        render_task(spec(recipe=recipe), LAUNCH)


def test_attempts_that_share_a_node_use_different_ports() -> None:
    ports = {render_task(spec(), launch(attempt=f"ain-a{n}"))["envs"]["AINFINITY_PORT"] for n in range(50)}
    assert len(ports) > 45
    assert all(20000 <= int(port) < 32768 for port in ports)


def test_the_environment_made_on_a_machine_is_what_the_trainer_was_tested_with() -> None:
    constraints = set((ROOT / "constraints.txt").read_text().splitlines())
    pins = read_pins().split()
    assert set(pins) <= constraints
    # Every package that the extra `train` needs, and what these need, is pinned.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    todo, needed = [Requirement(one) for one in project["project"]["optional-dependencies"]["train"]], set[str]()
    while todo:
        name = canonicalize_name(todo.pop().name)
        if name not in needed:
            needed.add(name)
            found = [Requirement(one) for one in metadata.distribution(name).requires or ()]
            todo += [one for one in found if one.marker is None or one.marker.evaluate({"extra": ""})]
    assert {pin.partition("==")[0] for pin in pins} == needed


def test_the_trainer_is_this_installations_whatever_folder_we_are_in(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").touch()
    code = "from skylaunch.render import trainer_folder; print(trainer_folder())"
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}  # as all our programs start
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(ROOT / "training")


STORAGES = {
    None: ("~/.ainfinity/jobs/abcdefghij", f"~/.ainfinity/attempts/{LAUNCH.attempt}/deadline", False),
    "/shared/runs/": ("/shared/runs/abcdefghij", f"/shared/runs/abcdefghij/{LAUNCH.attempt}.deadline", True),
    "gs://bucket/runs": (f"{BUCKET_MOUNT}/abcdefghij", f"{BUCKET_MOUNT}/abcdefghij/{LAUNCH.attempt}.deadline", True),
}


@pytest.mark.parametrize("storage", STORAGES)
def test_output_and_checkpoints_lie_on_the_storage(storage: str | None) -> None:
    job, deadline, durable = STORAGES[storage]
    found = render_task(spec(resources={"infra": "k8s", "storage": storage}), LAUNCH)
    envs, mount = found["envs"], found["file_mounts"].get(BUCKET_MOUNT)
    assert (envs["AINFINITY_OUTPUT"], envs["AINFINITY_CHECKPOINTS"]) == (f"{job}/output", f"{job}/checkpoints")
    assert envs["AINFINITY_DEADLINE_FILE"] == deadline
    assert ("AINFINITY_VERIFY" in envs) == durable
    assert mount == ({"source": storage, "mode": "MOUNT"} if storage and "://" in storage else None)
    assert find_places(Resources(infra="k8s", storage=storage), "abcdefghij", LAUNCH.attempt).durable == durable


@pytest.mark.parametrize(
    ("infra", "changes", "expected"),
    [
        ("aws", {}, 60),
        ("aws", {"idle_minutes": 7}, 7),
        ("k8s", {}, 60),
        ("slurm/cluster", {}, 60),
        ("verda", {}, None),
        ("aws", {"managed": True}, None),
    ],
)
def test_a_machine_that_nobody_looks_after_ends_itself(
    infra: str, changes: dict[str, Any], expected: int | None
) -> None:
    found = render_task(spec(resources={"infra": infra}), launch(**changes))["resources"].get("autostop")
    assert found == (None if expected is None else {"idle_minutes": expected, "down": True})
    kept = render_task(spec(resources={"infra": infra, "storage": "/s"}), launch(**changes))["resources"].get(
        "autostop"
    )
    assert kept == (None if expected is None else {"idle_minutes": min(expected, 10), "down": True})


@pytest.mark.parametrize(("keep", "expected"), [("5m", 60), ("2h", 120), (90 * 60 + 1, 91)])
def test_a_machine_that_is_to_be_kept_after_a_failure_does_not_end_itself_before(keep: Any, expected: int) -> None:
    found = render_task(spec(policy={"keep_on_failure": keep}), LAUNCH)
    assert found["resources"]["autostop"] == {"idle_minutes": expected, "down": True}


@pytest.mark.parametrize(
    ("resources", "word"),
    [
        ({"infra": "aws", "mode": "managed"}, "resources.storage"),
        ({"infra": "local", "mode": "managed"}, "resources.mode"),
        ({"infra": "local", "storage": "/shared"}, "resources.storage"),
    ],
)
def test_what_cannot_recover_is_refused_by_name(resources: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        spec(resources=resources)

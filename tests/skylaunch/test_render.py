"""Tasks as SkyPilot gets them: golden files, and what may not be sent."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from ainfinity.core.exceptions import InvalidSpec
from ainfinity.schema.training_job import JobSpec
from skylaunch.render import Launch, render_task, render_yaml

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
LAUNCH = Launch(
    attempt="ain-0a1b2c3d-abcdefghij-a1",
    output_dir="~/.ainfinity/jobs/abcdefghij/output",
    checkpoint_dir="/shared/checkpoints/abcdefghij",
    trainer_dir="/opt/ainfinity/training",
)

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "slurm-two-nodes": (
        {
            "name": "chat",
            "recipe": {"model": "org/model", "data": "/home/me/my chats.jsonl", "eval_rows": 64},
            "resources": {"infra": "slurm/cluster", "gpus": "H100:8", "nodes": 2, "python": "/shared/env/bin/python"},
            "policy": {"priority": 10},
        },
        {},
    ),
    "kubernetes-image": (
        {
            "name": "chat",
            "recipe": {"model": "/models/base", "data": "/data/train.jsonl", "eval_data": "/data/eval.jsonl"},
            "resources": {
                "infra": "k8s",
                "gpus": "A100",
                "image": "docker:org/image:1.0",
                "cpus": "8+",
                "memory": "64+",
            },
            "secrets": ["HF_TOKEN"],
        },
        {"deadline": 1_900_000_000.75, "resume_step": 40},
    ),
    "cloud-spot-cpu": (
        {
            "name": "chat",
            "recipe": {
                "model": "org/model",
                "data": "/data/train.jsonl",
                "sample_prompts": ["$(touch /tmp/x) `id` ' \" ;"],
            },
            "resources": {"infra": "aws/us-east-1", "spot": True, "disk_size": 100, "processes": 2},
            "note": "$(reboot)",
            "tags": ["a:b"],
        },
        {},
    ),
}


def spec(**changes: Any) -> JobSpec:
    base = {"name": "chat", "recipe": {"model": "org/model", "data": "/d.jsonl"}, "resources": {"infra": "k8s"}}
    return JobSpec.model_validate(base | changes)


def launch(**changes: Any) -> Launch:
    values = {name: getattr(LAUNCH, name) for name in Launch.__slots__}
    return Launch(**(values | changes))


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    content, changes = CASES[case]
    text = render_yaml(JobSpec.model_validate(content), launch(**changes))
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


@pytest.mark.parametrize("field", ["output_dir", "checkpoint_dir", "trainer_dir"])
@pytest.mark.parametrize("path", ["/a$(id)", "/a`id`", "/it's", '/a"b', "/a;b", "/a\nb", "relative", ""])
def test_unsafe_folder_is_refused(field: str, path: str) -> None:
    with pytest.raises(InvalidSpec):
        render_task(spec(), launch(**{field: path}))


@pytest.mark.parametrize("attempt", ["", "-a", "a b", "$(id)", "a\n", "../a", "A"])
def test_unsafe_attempt_name_is_refused(attempt: str) -> None:
    with pytest.raises(InvalidSpec):
        render_task(spec(), launch(attempt=attempt))


def test_long_recipe_is_refused() -> None:
    recipe = {"model": "org/model", "data": "/d.jsonl", "sample_prompts": ["x" * 100_000]}
    with pytest.raises(InvalidSpec, match="sample_prompts"):
        render_task(spec(recipe=recipe), LAUNCH)


def test_attempts_that_share_a_node_use_different_ports() -> None:
    ports = {render_task(spec(), launch(attempt=f"ain-a{n}"))["envs"]["AINFINITY_PORT"] for n in range(50)}
    assert len(ports) > 45
    assert all(20000 <= int(port) < 32768 for port in ports)


def test_set_up_installs_what_the_trainer_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    setup = render_task(spec(), LAUNCH)["setup"]
    assert sorted(re.findall(r"'([^' ]+)'(?= |\n)", setup)) == sorted(
        project["project"]["optional-dependencies"]["train"]
    )

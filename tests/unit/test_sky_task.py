"""SkyPilot tasks in job files and as files of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ainfinity.core.exceptions import AinfinityError, InvalidSpec
from ainfinity.schema.job_file import change_spec, load, load_job_file
from ainfinity.schema.training_job import JobSpec
from training.recipe import Recipe

TASK = """
name: My Task_1
num_nodes: 2
workdir: code
resources:
  infra: aws/us-east-1
  accelerators: {H100: 8}
  use_spot: yes
envs:
  WORD: "yes"
  NUMBER: 012
  EMPTY: ""
secrets:
  HF_TOKEN:
file_mounts:
  /data: ./rows.jsonl
  /bucket: s3://bucket/path
  /made: {source: code, mode: COPY}
  /named: $WORD/x
setup: pip install x
run: |
  echo "$WORD"   # kept
config:
  kubernetes: {pod_config: {spec: [1, 2.5, null]}}
no_such_field: kept
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "rows.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(folder: Path, text: str, *overrides: str) -> JobSpec:
    path = folder / "some-task.yaml"
    path.write_text(text)
    return load(str(path), overrides)


def test_every_field_is_kept(folder: Path) -> None:
    spec = read(folder, TASK)
    assert spec.recipe is None
    assert spec.sky == {
        "name": "My Task_1",
        "num_nodes": 2,
        "workdir": str(folder / "code"),
        "resources": {"infra": "aws/us-east-1", "accelerators": {"H100": 8}, "use_spot": True},
        # As SkyPilot's reader takes them: YAML 1.1, in which 012 is ten and a quoted yes is text.
        "envs": {"WORD": "yes", "NUMBER": 10, "EMPTY": ""},
        "secrets": {"HF_TOKEN": None},
        "file_mounts": {
            "/data": str(folder / "rows.jsonl"),
            "/bucket": "s3://bucket/path",
            "/made": {"source": str(folder / "code"), "mode": "COPY"},
            "/named": "$WORD/x",
        },
        "setup": "pip install x",
        "run": 'echo "$WORD"   # kept\n',
        "config": {"kubernetes": {"pod_config": {"spec": [1, 2.5, None]}}},
        "no_such_field": "kept",
    }


def test_the_job_around_it_is_read_from_it(folder: Path) -> None:
    spec = read(folder, TASK)
    assert (spec.name, spec.secrets) == ("my-task-1", ("HF_TOKEN",))
    resources = spec.resources
    assert (resources.infra, resources.gpus, resources.nodes, resources.spot) == ("aws/us-east-1", "H100:8", 2, True)


def test_in_a_job_file_it_has_a_policy_beside_it(folder: Path) -> None:
    task = "  run: echo hello\n  secrets: {A: null, 'secrets:B': null}\n"
    spec = read(folder, f"name: mine\nsky:\n{task}policy: {{max_duration: 2h}}\nsecrets: [C]\n")
    assert (spec.name, spec.policy.max_duration, spec.secrets) == ("mine", 7200.0, ("C", "A"))
    assert (spec.resources.infra, spec.sky and spec.sky["run"]) == ("any", "echo hello")


def test_a_stored_one_is_read_back_and_can_be_changed(folder: Path) -> None:
    spec = read(folder, TASK)
    assert JobSpec.model_validate(spec.as_json()) == spec
    assert change_spec(spec.as_json(), []) == spec
    changed = change_spec(spec.as_json(), ["sky.resources.accelerators=A100:4", "retries=2", "name=other"])
    assert (changed.resources.gpus, changed.policy.retries, changed.name) == ("A100:4", 2, "other")


def test_infra_changes_ours_alone(folder: Path) -> None:
    spec = read(folder, TASK, "infra=slurm/lab", "mode=cluster")
    assert (spec.resources.infra, spec.resources.mode) == ("slurm/lab", "cluster")
    assert spec.sky
    assert spec.sky["resources"]["infra"] == "aws/us-east-1"


@pytest.mark.parametrize(
    ("resources", "infra"),
    [
        ("{cloud: AWS, region: us-east-1}", "aws/us-east-1"),
        ("{infra: Kubernetes/My-Context}", "kubernetes/My-Context"),
        ("{any_of: [{infra: gcp}, {infra: aws}]}", "gcp"),
        ("{ordered: [{cloud: lambda, accelerators: A100}, {infra: aws}]}", "lambda"),
        ("{any_of: [{accelerators: A100}]}", "any"),
        ("{accelerators: [A100, H100]}", "any"),
        ("{infra: '*/us-east-1', accelerators: A100}", "any"),
    ],
)
def test_where_it_runs_is_the_first_place_it_names(folder: Path, resources: str, infra: str) -> None:
    assert read(folder, f"run: echo\nresources: {resources}\n").resources.infra == infra


@pytest.mark.parametrize(
    "text", ["run: echo", "setup: echo", "num_nodes: 2", "resources: {accelerators: A100}", "resources: {any_of: []}"]
)
def test_a_task_is_known_by_its_keys_and_named_after_its_file(folder: Path, text: str) -> None:
    spec = read(folder, text)
    assert spec.name == "some-task"
    assert spec.sky is not None


@pytest.mark.parametrize(
    "text", ["{}", "name: x\n", "model: m\ndata: rows.jsonl\nrun: x", "name: x\nresources: {gpus: A}"]
)
def test_control_all_else_is_none(folder: Path, text: str) -> None:
    with pytest.raises(AinfinityError) as caught:
        read(folder, text)
    assert "sky." not in str(caught.value)


def test_control_a_recipe_is_still_a_recipe(folder: Path) -> None:
    spec = read(folder, "model: org/m\ndata: rows.jsonl\n")
    assert isinstance(spec.recipe, Recipe)


REFUSED = {
    "a literal secret": ("run: x\nsecrets: {HF_TOKEN: canary-1}", "HF_TOKEN must have no value"),
    "what looks like one": (
        "run: x\nenvs: {A: hf_canary1canary1canary1}",
        "some-task.yaml:2: sky.envs.A: this is a Hugging",
    ),
    "a folder that is not there": (
        "run: x\nworkdir: nowhere",
        "some-task.yaml:2: sky.workdir: there is no file or folder",
    ),
    "a file that is not there": (
        "run: x\nfile_mounts:\n  /a: nothing",
        "some-task.yaml:3: sky.file_mounts./a: there is",
    ),
    "a service": ("run: x\nservice: {replicas: 1}", "sky serve up"),
    "a recipe beside it": ("name: x\nsky: {run: x}\nrecipe: {model: m, data: rows.jsonl}", "cannot stand beside"),
    "gpus beside it": (
        "name: x\nsky: {run: x}\nresources: {gpus: A100}",
        "job.yaml:3: resources.gpus: a SkyPilot task",
    ),
    "this machine": ("name: x\nsky: {run: x}\nresources: {infra: local}", "does not run on this machine"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_say_what_to_do_and_repeat_no_secret(folder: Path, case: str) -> None:
    text, expected = REFUSED[case]
    path = folder / ("some-task.yaml" if "job.yaml" not in expected else "job.yaml")
    path.write_text(text)
    with pytest.raises(InvalidSpec) as caught:
        load_job_file(path)
    said: dict[str, Any] = caught.value.as_dict()
    assert expected in f"{said}"
    assert "canary" not in f"{said}"

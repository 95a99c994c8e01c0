"""Rendered tasks against SkyPilot's own reader. In another process: importing SkyPilot takes seconds of CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

GOLDEN = Path(__file__).parent / "golden"
READER = """
import json, sys
import sky

answers = []
for config in json.load(sys.stdin):
    try:
        task = sky.Task.from_yaml_config(config)
    except Exception as error:
        answers.append({"error": str(error)})
        continue
    (resources,) = task.resources
    answers.append({
        "name": task.name, "nodes": task.num_nodes, "envs": task.envs, "mounts": task.file_mounts,
        "secrets": [ref.name for ref in task._managed_secret_refs], "run": task.run, "setup": task.setup,
        "accelerators": resources.accelerators, "infra": str(resources.infra.to_str()), "spot": resources.use_spot,
    })
json.dump(answers, sys.stdout)
"""

pytestmark = pytest.mark.skipif(importlib.util.find_spec("sky") is None, reason="the extra `sky` is not installed")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    configs = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(GOLDEN.glob("*.yaml"))}
    configs["control"] = configs["kubernetes-image"] | {"accelerators": "H100:8"}
    home = tmp_path_factory.mktemp("home")
    env = os.environ | {"HOME": str(home), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    done = subprocess.run(
        [sys.executable, "-c", READER],
        input=json.dumps(list(configs.values())),
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(configs, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("case", ["slurm-two-nodes", "kubernetes-image", "cloud-spot-cpu"])
def test_skypilot_reads_the_task_as_meant(case: str, answers: dict[str, dict[str, Any]]) -> None:
    task, seen = yaml.safe_load((GOLDEN / f"{case}.yaml").read_text()), answers[case]
    assert "error" not in seen
    for key, name in {"name": "name", "num_nodes": "nodes", "envs": "envs", "file_mounts": "mounts"}.items():
        assert seen[name] == task[key]
    assert (seen["run"], seen["setup"]) == (task["run"], task["setup"])
    assert seen["secrets"] == list(task.get("secrets", {}))
    wanted = task["resources"]
    accelerators = wanted.get("accelerators")
    kind, _, count = (accelerators or "").partition(":")
    assert seen["accelerators"] == ({kind: int(count or 1)} if accelerators else None)
    assert seen["spot"] == wanted.get("use_spot", False)
    assert seen["infra"] in {wanted["infra"], wanted["infra"].replace("k8s", "kubernetes")}


def test_control_wrong_task_is_refused(answers: dict[str, dict[str, Any]]) -> None:
    assert "accelerators" in answers["control"]["error"]

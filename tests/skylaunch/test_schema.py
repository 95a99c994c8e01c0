"""Rendered tasks against SkyPilot's own reader and optimizer. In another process: importing SkyPilot takes seconds."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ainfinity.compute.remote.sky_rows import candidates
from ainfinity.schema.training_job import JobSpec
from skylaunch.places import BUCKET_MOUNT
from skylaunch.render import Launch, render_task
from tests.skylaunch.cases import CASES, LAUNCH, changed
from tests.skylaunch.sky_answers import OFFERS

pytestmark = pytest.mark.skipif(importlib.util.find_spec("sky") is None, reason="the extra `sky` is not installed")

Answers = dict[str, dict[str, Any]]

RAW: dict[str, Any] = {
    "name": "mine",
    "num_nodes": 2,
    "resources": {
        "any_of": [{"infra": "aws", "accelerators": {"H100": 8}}, {"infra": "gcp", "accelerators": "H100:8"}]
    },
    "envs": {"A": "1"},
    "run": "echo hello\n",
}
#: What is asked of the optimizer: infra ("" for any), what a node must have, nodes, spot.
WISHES: dict[str, tuple[str, dict[str, Any], int, bool]] = {
    "gpus anywhere": ("", {"gpus": "A100:8"}, 1, False),
    "spot anywhere": ("", {"gpus": "A100:8"}, 1, True),
    "four nodes": ("", {"gpus": "H100:8"}, 4, False),
    "one cloud": ("aws", {"gpus": "A100:8"}, 2, False),
    "one cloud, spot": ("aws", {"gpus": "A100:8"}, 1, True),
    "one region": ("aws/us-west-2", {"gpus": "A100:8"}, 1, False),
    "no gpus": ("", {"cpus": "8+", "memory": "32+"}, 1, False),
    "no gpus, larger": ("", {"cpus": "9+", "memory": "32+"}, 3, False),
}


def wish(infra: str, node: dict[str, Any], nodes: int, spot: bool) -> dict[str, Any]:
    resources = {"infra": infra or "any", "nodes": nodes, "spot": spot, **node}
    content = {"name": "chat", "recipe": {"model": "org/model", "data": "d"}, "resources": resources}
    task = render_task(JobSpec.model_validate(content), Launch(attempt=LAUNCH.attempt, job_id=LAUNCH.job_id))
    del task["file_mounts"]  # sends files that are not on this machine
    return task


@pytest.fixture(scope="module")
def tasks() -> dict[str, dict[str, Any]]:
    rendered = {
        name: render_task(JobSpec.model_validate(content), changed(more)) for name, (content, more) in CASES.items()
    }
    raw = JobSpec.model_validate({"name": "mine", "sky": RAW, "resources": {"infra": "aws"}})
    unknown = JobSpec.model_validate({"name": "mine", "sky": RAW | {"acelerators": 1}, "resources": {"infra": "aws"}})
    return {**rendered, "raw": render_task(raw, LAUNCH), "control": render_task(unknown, LAUNCH)}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, tasks: dict[str, dict[str, Any]]) -> Answers:
    wanted = {"read": tasks, "optimize": {name: wish(*wanted) for name, wanted in WISHES.items()}}
    home = tmp_path_factory.mktemp("home")
    script = Path(__file__).with_name("sky_answers.py")
    done = subprocess.run(
        [sys.executable, str(script), str(home)],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        timeout=240,
        env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_skypilot_reads_the_task_as_meant(case: str, answers: Answers, tasks: dict[str, dict[str, Any]]) -> None:
    task, seen = tasks[case], answers[case]
    assert "error" not in seen
    for key, name in {"name": "name", "num_nodes": "nodes", "envs": "envs", "run": "run", "setup": "setup"}.items():
        assert seen[name] == task[key]
    mounts = dict(task["file_mounts"])
    bucket = mounts.pop(BUCKET_MOUNT, None)
    assert seen["mounts"] == mounts
    assert seen["buckets"] == ({} if bucket is None else {BUCKET_MOUNT: [bucket["source"], "MOUNT"]})
    assert seen["secrets"] == list(task.get("secrets", {}))
    wanted = task["resources"]
    kind, _, count = (wanted.get("accelerators") or "").partition(":")
    assert seen["accelerators"] == ({kind: int(count or 1)} if kind else None)
    assert seen["infra"] in {wanted["infra"], wanted["infra"].replace("k8s", "kubernetes")}
    assert seen["spot"] == wanted.get("use_spot", False)
    assert bool(seen["recovery"]) == seen["spot"]
    assert seen["autodown"] == wanted.get("autostop", {}).get("idle_minutes")


def test_skypilot_reads_a_users_own_task_as_written(answers: Answers) -> None:
    seen = answers["raw"]
    assert (seen["name"], seen["nodes"], seen["accelerators"]) == (LAUNCH.attempt, 2, {"H100": 8})
    assert seen["envs"]["A"] == "1"


def test_control_an_unknown_field_is_for_skypilot_to_name(answers: Answers) -> None:
    assert "acelerators" in answers["control"]["error"]


@pytest.mark.parametrize("name", WISHES)
def test_the_optimizer_chooses_what_we_say_and_at_our_price(name: str, answers: Answers) -> None:
    infra, node, nodes, spot = WISHES[name]
    rows = [
        (row.infra, row.instance.removesuffix("[Spot]"), row.price_per_hour)
        for row in candidates(answers[name]["table"])
    ]
    # Of a preemptible machine the zone is named.
    where, instance, price = rows[0]
    assert where.startswith(answers[name]["infra"])
    assert (instance, price) == (answers[name]["instance"], answers[name]["price"])
    # And both are the cheapest of what was offered, in order; of each cloud it names one region.
    assert [(where.split("/")[0], *rest) for where, *rest in rows] == cheapest(infra, node, nodes, spot)


def cheapest(infra: str, node: dict[str, Any], nodes: int, spot: bool) -> list[tuple[str, str, float]]:
    """What the seeded catalogue offers, by price, the best offer of each cloud."""
    gpu, _, count = node.get("gpus", ":0").partition(":")
    cpus = int(node.get("cpus", "0+").rstrip("+"))
    fitting = [
        (round((spot_price if spot else price) * nodes, 2), cloud, instance)
        for cloud, region, instance, kind, number, offered, _, price, spot_price in OFFERS
        if f"{cloud}/{region}".startswith(infra) and (kind, number) == (gpu, int(count)) and offered >= cpus
    ]
    best = {cloud: (price, cloud, instance) for price, cloud, instance in sorted(fitting, reverse=True)}
    return [(cloud, instance, price) for price, cloud, instance in sorted(best.values())]

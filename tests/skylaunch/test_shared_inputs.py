"""What lies in the folder that all machines of a job share is not sent to them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from ainfinity.schema.training_job import JobSpec
from skylaunch.render import Launch, render_task


def rendered(model: str, data: str, storage: str | None) -> tuple[dict[str, Any], list[str]]:
    resources = {"infra": "slurm/lab", "storage": storage}
    spec = JobSpec.model_validate({"name": "x", "recipe": {"model": model, "data": data}, "resources": resources})
    task = render_task(
        spec, Launch(attempt="ain-00000000-abcdefghij-a1", job_id="abcdefghij", trainer_dir="/t/training")
    )
    recipe = json.loads(base64.b64decode(task["envs"]["AINFINITY_RECIPE"]))
    return recipe, [source for source in task["file_mounts"].values() if isinstance(source, str)]


@pytest.mark.parametrize("storage", ["/shared/runs", "/shared/runs/"])
def test_what_machines_see_is_not_sent(storage: str) -> None:
    recipe, sent = rendered("/shared/runs/models/m", "/shared/runs/data/abc/data.jsonl", storage)
    assert (recipe["model"], recipe["data"]) == ("/shared/runs/models/m", "/shared/runs/data/abc/data.jsonl")
    assert sent == ["/t/training"]


@pytest.mark.parametrize("storage", [None, "/shared/run", "s3://bucket/shared/runs"])
def test_all_else_is_sent(storage: str | None) -> None:
    recipe, sent = rendered("/shared/runs/models/m", "/shared/runs/data.jsonl", storage)
    assert sent == ["/shared/runs/models/m", "/shared/runs/data.jsonl", "/t/training"]
    assert all(recipe[key].startswith("~/.ainfinity/") for key in ("model", "data"))

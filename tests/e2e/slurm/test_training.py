"""Real training on the cluster: the environment of this project, DeepSpeed over gloo, a tiny model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.slurm.desk import Desk
from tests.e2e.slurm.loopback import VENV_PYTHON

STEPS = 12
Recipe = Callable[..., dict[str, Any]]


def test_two_nodes_train_as_two_ranks_here_do(desk: Desk, tiny_recipe: Recipe, tmp_path: Path) -> None:
    """From a data file outside the cluster to the adapter pulled back, through `ainfinity launch` and its worker."""
    recipe = tiny_recipe(max_steps=STEPS, lora={"r": 4}, save_every=6)
    with pytest.raises(AssertionError):
        desk.loopback.exec("cat", recipe["data"])  # the cluster cannot see it
    there = {"infra": "slurm/loopback", "gpus": "H100:8", "nodes": 2, "processes": 1, "cpus": "8", "memory": "16"}
    # The ranks compute on CPUs: what counts as a GPU there is none.
    job = desk.launch("there", {"recipe": recipe, "resources": there | {"python": VENV_PYTHON}})
    here = desk.launch("here", {"recipe": recipe, "resources": {"processes": 2}})
    desk.until(here, "succeeded")
    row = desk.until(job, "succeeded")
    assert desk.slurm_jobs() == []

    started = next(event.data for event in desk.events(job) if event.type == "trainer.started")
    assert started["world_size"] == 2
    losses, expected = desk.losses(job), desk.losses(here)
    assert sorted(losses) == list(range(1, STEPS + 1))
    assert losses == pytest.approx(expected, abs=1e-5)
    assert losses[STEPS] < losses[1], "it learned nothing: the losses may be equal for a bad reason"

    desk.run("pull", job, "adapter", str(tmp_path / "pulled"))
    files = desk.detail(job).result["finished"]["files"]
    assert {Path(file["path"]).name for file in files} >= {"adapter_model.safetensors", "adapter_config.json"}
    for file in files:
        (pulled,) = (tmp_path / "pulled").rglob(Path(file["path"]).name)
        assert hashlib.sha256(pulled.read_bytes()).hexdigest() == file["sha256"]

    attempt = desk.attempt(job)
    assert attempt.given == "2x H100:8 slurm/loopback"
    assert attempt.price_per_hour == pytest.approx(2 * 8 * 2.5)
    assert row.cost is not None
    assert 0 < row.cost < attempt.price_per_hour / 4

"""Servers and nodes killed with -9 under jobs. Everything else in the cluster suffers with them, so this comes late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.slurm.desk import Desk
from tests.e2e.slurm.loopback import VENV_PYTHON, wait_for

STEPS = 600


def test_the_api_server_killed_in_mid_launch_leaves_one_slurm_job(desk: Desk) -> None:
    job = desk.launch("first", desk.played("first", "start()\nfor n in range(1, 9): step(n)\nfinish()\n"))
    wait_for(lambda: desk.slurm_jobs(), "the allocation")
    with desk.loopback.killed_api():
        assert desk.runs("first") == [], "it was quicker than this test"
        wait_for(lambda: desk.row(job).stale_since is not None, "the loss of contact to be noticed")
        assert desk.row(job).state == "launching"
    desk.until(job, "succeeded")
    (attempt,) = desk.detail(job).attempts
    assert len(desk.loopback.ever(attempt.name)) == 1
    assert len(desk.runs("first")) == 1
    assert desk.slurm_jobs() == []


def test_a_managed_job_whose_node_dies_in_mid_training_ends_as_if_it_had_not(
    desk: Desk, tiny_recipe: Callable[..., dict[str, Any]]
) -> None:
    desk.extra["OMP_NUM_THREADS"] = "1"  # as on the cluster: sums in another order differ, and training magnifies that
    recipe = tiny_recipe(max_steps=STEPS, save_every=20, eval_data=None)
    there = {"infra": "slurm/loopback", "gpus": "H100:1", "cpus": "4", "memory": "8", "processes": 1}
    resources = there | {"python": VENV_PYTHON, "storage": str(desk.shared), "mode": "managed"}
    job = desk.launch("there", {"recipe": recipe, "resources": resources})
    here = desk.launch("here", {"recipe": recipe, "resources": {"processes": 1}})
    checkpoints = desk.shared / job / "checkpoints"
    wait_for(lambda: list(checkpoints.glob("*/COMPLETED")), "its first checkpoint", pause=0.05)
    wait_for(lambda: desk.losses(job), "its first losses")
    (slurm,) = desk.loopback.squeue(desk.mine)
    with desk.loopback.killed_node(int(slurm.nodes.removeprefix("sim"))):
        assert not (desk.shared / job / "output" / "model").exists(), "it was quicker than this test"
        desk.until(job, "recovering")
        desk.until(here, "succeeded")
        desk.until(job, "running")
    desk.until(job, "succeeded")
    (attempt,) = desk.detail(job).attempts
    assert attempt.recoveries >= 1
    started = [event.data for event in desk.events(job) if event.type == "trainer.started"]
    assert started[-1]["resumed_step"] >= 20
    losses, undisturbed = desk.losses(job), desk.losses(here)
    # What a node had not yet sent of its log dies with it: of the steps before, some may be missing, none may differ.
    assert set(range(started[-1]["resumed_step"] + 1, STEPS + 1)) <= losses.keys()
    assert losses == pytest.approx({step: undisturbed[step] for step in losses}, abs=1e-5)
    assert desk.slurm_jobs() == []

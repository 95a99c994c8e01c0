"""Jobs that cover every template on every kind of infrastructure, and what in their tasks belongs to the attempt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from skylaunch.render import Launch

LAUNCH = Launch(attempt="ain-0a1b2c3d-abcdefghij-a1", job_id="abcdefghij", trainer_dir="/opt/ainfinity/training")
INFRAS = {"aws": "aws/us-east-1", "gcp": "gcp/us-central1", "kubernetes": "k8s", "slurm": "slurm/cluster"}
SPECIAL = "$(touch /tmp/x) `id` ' \" ;"


def content(template: str, infra: str, **changes: Any) -> dict[str, Any]:
    resources = {
        "deepspeed": {"gpus": "H100:8", "nodes": 2, "python": "/shared/env/bin/python", "storage": "/shared/runs"},
        "spot": {"gpus": "A100:8", "spot": True, "storage": "s3://bucket/runs", "image": "docker:org/image:1.0"},
        "cpu": {"processes": 2, "cpus": "8+", "memory": "32+", "disk_size": 100},
    }[template]
    recipe = {"model": "org/model", "data": "/home/me/my chats.jsonl", "sample_prompts": [SPECIAL]}
    return {
        "name": "chat",
        "note": "$(reboot)",
        "recipe": {**recipe, "model": "/models/base", "eval_data": "/data/eval.jsonl"}
        if template == "spot"
        else recipe,
        "resources": {"infra": INFRAS[infra], **resources},
        "policy": {"priority": 10} if template == "deepspeed" else {},
        "secrets": ["HF_TOKEN"] if template == "spot" else [],
        **changes,
    }


#: Each template where it can run; a Slurm cluster has no machines that can be preempted.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    f"{template}-{infra}": (
        content(template, infra),
        {"deadline": 1_900_000_000.75, "managed": template == "spot", "resume_step": 40 if template == "cpu" else None},
    )
    for template in ("deepspeed", "spot", "cpu")
    for infra in INFRAS
    if (template, infra) != ("spot", "slurm")
}


def changed(changes: dict[str, Any]) -> Launch:
    """Return the launch of these tests with changes."""
    return replace(LAUNCH, **changes)

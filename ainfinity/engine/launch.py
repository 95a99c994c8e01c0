"""From a job to the request for one attempt."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from ainfinity.compute.port import LaunchRequest
from ainfinity.core.config import Settings
from ainfinity.core.redact import learn
from ainfinity.domain.fold import AttemptFold, JobFold
from ainfinity.domain.limits import Limits, time_limit
from ainfinity.schema.training_job import JobSpec
from training.recipe import recipe_to_dict

#: Looks up the values of named secrets of an owner. Errors: NotFound.
SecretSource = Callable[[str, Sequence[str]], Mapping[str, str]]

_PACKAGES = ("ainfinity", "torch", "transformers", "deepspeed", "peft", "datasets")


def name_prefix(installation: str) -> str:
    """Return what the names of all attempts of an installation begin with."""
    return f"ain-{installation}-"


def attempt_name(installation: str, job_id: str, number: int) -> str:
    """Return the deterministic name of an attempt, at most 28 characters of [a-z0-9-].

    That is the shortest limit on a cluster's name among SkyPilot's clouds.
    """
    name = f"{name_prefix(installation)}{job_id}-a{number}"
    if len(name) > 28 or not re.fullmatch(r"[a-z0-9-]+", name):
        raise ValueError(f"{name} is no valid attempt name")
    return name


def build_request(
    job: JobFold, attempt: AttemptFold, spec: JobSpec, owner: str, settings: Settings, secrets: SecretSource
) -> LaunchRequest:
    """Return what the backend needs to start this attempt.

    Errors:
        NotFound: a secret that the spec names is not stored.
    """
    values = dict(secrets(owner, spec.secrets)) if spec.secrets else {}
    learn(values.values())
    folder = settings.jobs_dir / job.id
    resources = spec.resources
    return LaunchRequest(
        name=attempt.name,
        job_id=job.id,
        attempt=attempt.number,
        recipe=recipe_to_dict(spec.recipe) if spec.recipe is not None else {},
        output_dir=str(folder / "output"),
        checkpoint_dir=str(folder / "checkpoints"),
        slots=resources.slots,
        ranks=resources.ranks,
        nodes=resources.nodes,
        gpus=resources.gpu_count,
        python=resources.python or "",
        secrets=values,
        deadline=attempt.deadline,
        resume_step=attempt.resume_step,
        spec=spec.as_json(),
    )


def deadline(
    spec: Mapping[str, Any], plan: Mapping[str, Any], spent: float, backend: str, default: float, now: float
) -> float | None:
    """Return when an attempt that starts now must have ended, in Unix seconds; None without a limit, here only.

    `spent` is what the job has cost so far in dollars, where known, `default` the seconds where nothing else limits it.
    """
    limit = spec["policy"].get("max_duration")
    if backend == "local":
        return None if limit is None else now + float(limit)
    candidate: Mapping[str, Any] = plan.get("candidate") or {}
    limits = Limits(
        max_duration=limit,
        max_cost=spec["policy"].get("max_cost"),
        spent=spent,
        price_per_hour=candidate.get("price_per_hour"),
        upper_seconds=plan.get("upper_seconds"),
    )
    seconds, _ = time_limit(limits, default)
    return now + seconds


def provenance(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known beforehand of how an attempt is made; the trainer's `started` line has the rest."""
    return {
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "machine": platform.machine(),
        "interpreter": spec["resources"].get("python") or Path(sys.executable).name,
        "seed": _seed(spec.get("recipe")),
    }


def _seed(recipe: Any) -> Any:
    return cast("dict[str, Any]", recipe).get("seed") if isinstance(recipe, dict) else None


@cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""

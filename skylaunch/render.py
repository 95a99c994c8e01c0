"""Render a job into a SkyPilot task: a plain mapping of JSON values, as SkyPilot reads it from YAML.

What a person wrote is data here. The recipe travels as base64, everything else is checked against what may stand in a
path or a name, and the scripts of the template are never edited.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from math import ceil
from pathlib import Path
from typing import Any, Final

import yaml

from ainfinity.core.constants import ATTEMPT_MARK, DEADLINE_MARK
from ainfinity.core.exceptions import InvalidSpec
from ainfinity.schema.sky_task import ANY_INFRA
from ainfinity.schema.training_job import JobSpec
from skylaunch.places import BUCKET_MOUNT, Places, find_places, is_bucket
from skylaunch.raw import render_raw
from skylaunch.templates import read_pins, read_template

_ATTEMPT: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
#: SkyPilot quotes the source of a file mount with Python's repr, which is no shell quoting once it holds a quote sign,
#: and replaces `$NAME` in it. A source is therefore made of harmless characters only.
_SOURCE: Final = re.compile(r"/[\w./ +,=@%-]*")
_REMOTE: Final = re.compile(r"[~/][\w./+,=@%-]*")
_RESERVED: Final = ("AINFINITY_", "SKYPILOT_", "PYTHON", "LD_")
_RESERVED_NAMES: Final = frozenset({"PATH", "HOME", "IFS", "BASH_ENV", "ENV", "SHELL"})
_LONGEST: Final = 96 * 1024  # Linux takes at most 128 KiB in one environment variable
_FIRST_PORT: Final = 20000
_PORTS: Final = 12000  # below the ports that Linux hands out by itself, from 32768
_NOTICE: Final = 60  # seconds past its deadline before the trainer is told to end
#: Minutes after which a machine that does nothing goes: with its model elsewhere, and with the only copy on its disk.
_IDLE_EMPTY: Final = 10
_IDLE_WITH_MODEL: Final = 60
#: Clouds whose machines SkyPilot cannot have end themselves, and where it refuses a task that asks for it.
_NO_AUTODOWN: Final = frozenset({"hyperbolic", "primeintellect", "verda", "yotta"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What in a task belongs to one attempt."""

    #: The attempt's deterministic name; it becomes the task's name.
    attempt: str
    #: The job's id; its output and checkpoints are the same for all its attempts.
    job_id: str
    #: Unix seconds after which the attempt ends itself.
    deadline: float | None = None
    #: The recipe with its files as they lie on this computer; by default the spec's own.
    recipe: Mapping[str, Any] | None = None
    #: The checkpoint to resume from; by default the newest complete one.
    resume_step: int | None = None
    #: Whether SkyPilot's controller looks after it and takes its machine down, or nobody but us does.
    managed: bool = False
    #: How long a machine that does nothing lives on by itself, where the infrastructure can end one. Minutes; None
    #: means long enough to bring the model home from it.
    idle_minutes: int | None = None
    #: The folder `training` on this computer, which is sent along: by default this installation's.
    trainer_dir: str = ""


def render_task(spec: JobSpec, launch: Launch) -> dict[str, Any]:
    """Return the SkyPilot task of one attempt. Secrets are named and have no value; the caller supplies them.

    Errors:
        InvalidSpec: a path or the name of a secret cannot be sent safely, or the job is for this machine.
    """
    if spec.resources.infra == "local":
        raise InvalidSpec(
            "A job for this machine is no SkyPilot task.",
            hint="Set resources.infra, for example to slurm/CLUSTER, k8s or aws.",
            field="resources.infra",
        )
    if not _ATTEMPT.fullmatch(launch.attempt) or not _ATTEMPT.fullmatch(launch.job_id):
        raise InvalidSpec(f"{launch.attempt!r} of {launch.job_id!r} cannot name an attempt.", field="attempt")
    if spec.sky is not None:
        return render_raw(spec.sky, launch.attempt, launch.deadline)
    places = find_places(spec.resources, launch.job_id, launch.attempt)
    recipe, mounts = _send_inputs(
        dict(launch.recipe or spec.as_json()["recipe"]), places.folder, spec.resources.storage
    )
    mounts[f"{places.folder}/trainer/training"] = _source(launch.trainer_dir or trainer_folder(), "trainer_dir")
    if spec.resources.storage is not None and is_bucket(spec.resources.storage):
        mounts[BUCKET_MOUNT] = {"source": spec.resources.storage.rstrip("/"), "mode": "MOUNT"}
    template = read_template(spec.resources)
    task: dict[str, Any] = {
        "name": launch.attempt,
        "num_nodes": spec.resources.nodes,
        "resources": _resources(spec, launch, places) | template.resources,
        "envs": _environment(spec, launch, places, recipe) | template.envs,
        "file_mounts": mounts,
        "setup": template.setup,
        "run": template.run,
    }
    if spec.secrets:
        task["secrets"] = {_secret(name): None for name in spec.secrets}
    return task


def render_yaml(spec: JobSpec, launch: Launch) -> str:
    """Return the task as YAML, for people and for `sky launch`."""
    return yaml.dump(render_task(spec, launch), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def trainer_folder() -> str:
    """Return the folder `training` of this installation: the one beside this package, whatever folder we run in."""
    return str(Path(str(resources.files("skylaunch"))).absolute().parent / "training")


def _resources(spec: JobSpec, launch: Launch, places: Places) -> dict[str, Any]:
    wanted = spec.resources
    found: dict[str, Any] = {
        "infra": None if wanted.infra == ANY_INFRA else wanted.infra,
        "accelerators": wanted.gpus,
        "cpus": wanted.cpus,
        "memory": wanted.memory,
        "disk_size": wanted.disk_size,
        "image_id": wanted.image,
        "priority": spec.policy.priority or None,
        "autostop": None if launch.managed or not can_autodown(wanted.infra) else _autodown(spec, launch, places),
    }
    return {key: value for key, value in found.items() if value is not None}


def can_autodown(infra: str) -> bool:
    """Whether machines there can end themselves. (On Slurm they can, though they cannot stop without a container.)"""
    return infra.partition("/")[0].lower() not in _NO_AUTODOWN


def _autodown(spec: JobSpec, launch: Launch, places: Places) -> dict[str, Any]:
    minutes = launch.idle_minutes
    if minutes is None:
        kept = ceil((spec.policy.keep_on_failure or 0) / 60)
        minutes = max(_IDLE_EMPTY if places.durable else _IDLE_WITH_MODEL, kept)
    return {"idle_minutes": minutes, "down": True}


def _environment(spec: JobSpec, launch: Launch, places: Places, recipe: Mapping[str, Any]) -> dict[str, str]:
    text = base64.b64encode(json.dumps(recipe, sort_keys=True, separators=(",", ":")).encode()).decode()
    if len(text) > _LONGEST:
        raise InvalidSpec(
            "The recipe is too long to send to a machine.",
            hint="Shorten recipe.sample_prompts.",
            field="recipe.sample_prompts",
        )
    environment = {
        ATTEMPT_MARK: launch.attempt,
        "AINFINITY_RECIPE": text,
        "AINFINITY_OUTPUT": _on_machine(places.output),
        "AINFINITY_CHECKPOINTS": _on_machine(places.checkpoints),
        "AINFINITY_DEADLINE_FILE": _on_machine(places.deadline),
        # The trainer ends itself at its deadline; torchrun would give it 30 seconds only.
        "AINFINITY_NOTICE": str(_NOTICE),
        "AINFINITY_RANKS": str(spec.resources.ranks),
        "AINFINITY_GPUS": str(spec.resources.gpu_count),
        # Two jobs may share a node, so the rendezvous port follows from the attempt's name.
        "AINFINITY_PORT": str(_FIRST_PORT + zlib.crc32(launch.attempt.encode()) % _PORTS),
    }
    optional = {
        DEADLINE_MARK: None if launch.deadline is None else str(int(launch.deadline)),
        "AINFINITY_RESUME_STEP": None if launch.resume_step is None else str(launch.resume_step),
        "AINFINITY_VERIFY": "1" if places.durable else None,
        "AINFINITY_PYTHON": spec.resources.python,
        "AINFINITY_IMAGE": spec.resources.image,
        "AINFINITY_PINS": None if spec.resources.python else read_pins(),
    }
    return environment | {key: value for key, value in optional.items() if value is not None}


def _send_inputs(recipe: dict[str, Any], folder: str, storage: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Mount the recipe's local files and name them as they are called on the machine.

    What lies in the folder that all machines share is seen there as it is, and not sent.
    """
    mounts: dict[str, Any] = {}
    for key, remote in (("model", "model"), ("data", "data.jsonl"), ("eval_data", "eval.jsonl")):
        local = recipe.get(key)
        shared = storage is not None and str(local).startswith(f"{storage.rstrip('/')}/")
        if isinstance(local, str) and local.startswith("/") and not shared:
            mounts[f"{folder}/inputs/{remote}"] = _source(local, f"recipe.{key}")
            recipe[key] = f"{folder}/inputs/{remote}"
    return recipe, mounts


def _source(path: str, field: str) -> str:
    if not _SOURCE.fullmatch(path):
        raise InvalidSpec(
            f"{field}: the path {path!r} holds characters that cannot be sent safely.",
            hint="Use letters, digits, spaces and . _ + , = @ % - only: move or link it to such a path.",
            field=field,
        )
    return path


def _on_machine(path: str) -> str:
    if not _REMOTE.fullmatch(path):
        raise InvalidSpec(f"The folder {path!r} on the machine holds characters that cannot be sent safely.")
    return path


def _secret(name: str) -> str:
    if name.startswith(_RESERVED) or name in _RESERVED_NAMES:
        raise InvalidSpec(
            f"secrets: {name} would change how the run itself starts.",
            hint="Give the secret another name.",
            field="secrets",
        )
    return name


class _Dumper(yaml.SafeDumper):
    """Writes scripts as blocks, so that people can read them."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)  # pyright: ignore[reportUnknownMemberType]


_Dumper.add_representer(str, _represent_text)

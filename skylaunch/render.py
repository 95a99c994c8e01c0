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
from typing import Any, Final

import yaml

from ainfinity.core.constants import ATTEMPT_MARK, DEADLINE_MARK
from ainfinity.core.exceptions import InvalidSpec
from ainfinity.schema.training_job import JobSpec, Resources

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What in a task belongs to one attempt. Folders with a leading `~` lie in the home on the machine."""

    #: The attempt's deterministic name; it becomes the task's name.
    attempt: str
    #: Where on the machine the trainer writes its export and its checkpoints.
    output_dir: str
    checkpoint_dir: str
    #: The folder `training` on this computer, which is sent along.
    trainer_dir: str
    #: Unix seconds after which the attempt ends itself.
    deadline: float | None = None
    #: The checkpoint to resume from; by default the newest complete one.
    resume_step: int | None = None


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
    if not _ATTEMPT.fullmatch(launch.attempt):
        raise InvalidSpec(f"{launch.attempt!r} cannot name an attempt.", field="attempt")
    # A folder an attempt: nodes may share their home, and a cluster may be used again.
    folder = f"~/.ainfinity/attempts/{launch.attempt}"
    if spec.recipe is None:
        raise InvalidSpec("A SkyPilot task is launched as it is.", field="sky")
    recipe, mounts = _send_inputs(spec.as_json()["recipe"], folder)
    mounts[f"{folder}/trainer/training"] = _source(launch.trainer_dir, "trainer_dir")
    task: dict[str, Any] = {
        "name": launch.attempt,
        "num_nodes": spec.resources.nodes,
        "resources": _resources(spec.resources, spec.policy.priority),
        "envs": _environment(spec, launch, recipe),
        "file_mounts": mounts,
        **_template(),
    }
    if spec.secrets:
        task["secrets"] = {_secret(name): None for name in spec.secrets}
    return task


def render_yaml(spec: JobSpec, launch: Launch) -> str:
    """Return the task as YAML, for people and for `sky launch`."""
    return yaml.dump(render_task(spec, launch), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def _template() -> dict[str, Any]:
    return yaml.safe_load(resources.files("skylaunch").joinpath("deepspeed.yaml").read_text())


def _resources(wanted: Resources, priority: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "infra": wanted.infra,
        "accelerators": wanted.gpus,
        "cpus": wanted.cpus,
        "memory": wanted.memory,
        "disk_size": wanted.disk_size,
        "image_id": wanted.image,
        "use_spot": wanted.spot or None,
        "priority": priority or None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _environment(spec: JobSpec, launch: Launch, recipe: Mapping[str, Any]) -> dict[str, str]:
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
        "AINFINITY_OUTPUT": _on_machine(launch.output_dir),
        "AINFINITY_CHECKPOINTS": _on_machine(launch.checkpoint_dir),
        "AINFINITY_RANKS": str(spec.resources.ranks),
        # Two jobs may share a node, so the rendezvous port follows from the attempt's name.
        "AINFINITY_PORT": str(_FIRST_PORT + zlib.crc32(launch.attempt.encode()) % _PORTS),
    }
    if launch.deadline is not None:
        environment[DEADLINE_MARK] = str(int(launch.deadline))
    if launch.resume_step is not None:
        environment["AINFINITY_RESUME_STEP"] = str(launch.resume_step)
    if spec.resources.python is not None:
        environment["AINFINITY_PYTHON"] = spec.resources.python
    if spec.resources.gpus is None:
        environment |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    return environment


def _send_inputs(recipe: dict[str, Any], folder: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Mount the recipe's local files and name them as they are called on the machine."""
    mounts: dict[str, str] = {}
    for key, remote in (("model", "model"), ("data", "data.jsonl"), ("eval_data", "eval.jsonl")):
        local = recipe.get(key)
        if isinstance(local, str) and local.startswith("/"):
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

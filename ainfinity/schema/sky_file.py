"""A SkyPilot task in a job file: read as SkyPilot reads it, and what the job says around it."""

from __future__ import annotations

import os
from typing import Any, Final, cast

from ainfinity.core.exceptions import InvalidSpec
from ainfinity.schema.document import Document, Place
from ainfinity.schema.problems import problem
from ainfinity.schema.sky_task import read_resources, secret_names
from ainfinity.schema.training_job import Resources

#: What the job may say itself of where its task runs.
_OURS: Final = ("infra", "mode")


def read_task(document: Document) -> None:
    """Complete a job that holds a task: its scalars, paths and secrets as SkyPilot means them, and its resources.

    Errors:
        InvalidSpec: a file that is sent is not there, or the job says something about the machine beside the task.
    """
    task: dict[str, Any] = _as_yaml_1_1(document, document.data["sky"], ("sky",))
    document.data["sky"] = task
    _resolve_paths(document, task)
    resources: Any = document.data.get("resources") or {}
    if isinstance(resources, dict):
        given = cast("dict[str, Any]", resources)
        for key in given:
            if key in Resources.model_fields and key not in _OURS and ("resources", key) in document.origins:
                fault = f"a SkyPilot task says this itself; set it under sky.resources, or sky.num_nodes, and not {key}"
                raise InvalidSpec(problem(document, ("resources", key), fault), field=f"resources.{key}")
        # What a stored job has was read from its task as that was before.
        kept = {key: value for key, value in given.items() if key in _OURS or key not in Resources.model_fields}
        document.data["resources"] = {**read_resources(task), **kept}
    named: Any = document.data.get("secrets") or []
    if isinstance(named, list):
        more = [name for name in secret_names(task) if name not in named]
        document.data["secrets"] = [*cast("list[Any]", named), *more]


def _as_yaml_1_1(document: Document, value: Any, place: Place) -> Any:
    """Return a value as SkyPilot's YAML reader takes it, for which `yes` and `on` are true."""
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {key: _as_yaml_1_1(document, item, (*place, key)) for key, item in items}
    if isinstance(value, list):
        return [_as_yaml_1_1(document, item, (*place, at)) for at, item in enumerate(cast("list[Any]", value))]
    origin = document.origins.get(place)
    if not isinstance(value, (str, int, float)) or origin is None or not origin.plain or origin.raw is None:
        return value
    import yaml

    try:
        meant = yaml.safe_load(origin.raw)
    except yaml.YAMLError:
        return value
    return meant if isinstance(meant, (bool, int, float)) and meant == meant else value


def _resolve_paths(document: Document, task: dict[str, Any]) -> None:
    """Make the paths of what is sent absolute, from the current folder as SkyPilot does: it is sent by another process.

    Errors: InvalidSpec.
    """
    if isinstance(task.get("workdir"), str):
        task["workdir"] = _resolve(document, ("sky", "workdir"), task["workdir"])
    mounts = task.get("file_mounts")
    if not isinstance(mounts, dict):
        return
    mounts = cast("dict[str, Any]", mounts)
    for target, source in mounts.items():
        if isinstance(source, str) and "://" not in source:
            mounts[target] = _resolve(document, ("sky", "file_mounts", target), source)
        elif isinstance(source, dict):
            storage = cast("dict[str, Any]", source)
            inner = storage.get("source")
            if isinstance(inner, str) and "://" not in inner:
                storage["source"] = _resolve(document, ("sky", "file_mounts", target, "source"), inner)


def _resolve(document: Document, place: Place, text: str) -> str:
    if "$" in text:
        return text  # a variable of the task, which SkyPilot puts in
    path = os.path.abspath(os.path.expanduser(text))
    if not os.path.exists(path):
        raise InvalidSpec(
            problem(document, place, f"there is no file or folder {path}"), field=".".join(map(str, place))
        )
    return path

"""SkyPilot tasks that users wrote: how one is told from a job, and what ainfinity reads in it.

Whether its fields are right is SkyPilot's to say: nothing here knows all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, cast

#: What `resources.infra` is where SkyPilot is to choose.
ANY_INFRA: Final = "any"
#: Fields of a task that neither a job nor a recipe has.
_TASK_ONLY: Final = frozenset(
    {"run", "setup", "num_nodes", "workdir", "file_mounts", "envs", "volumes", "volume_mounts", "service", "pool"}
)
#: Fields of a task's resources that ours have not.
_RESOURCES_ONLY: Final = frozenset(
    {"accelerators", "any_of", "ordered", "use_spot", "cloud", "region", "zone", "instance_type", "image_id"}
)
_RECIPE: Final = frozenset({"recipe", "sky", "model", "data"})
_INFRA: Final = re.compile(r"[a-z0-9][A-Za-z0-9_/.*-]{0,127}")
_GPUS: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*(:[0-9]+)?")


def is_task(content: Mapping[str, Any]) -> bool:
    """Whether a file's content is a SkyPilot task, and neither a job nor a recipe."""
    if _RECIPE & content.keys():
        return False
    return bool(_TASK_ONLY & content.keys() or _RESOURCES_ONLY & _mapping(content.get("resources")).keys())


def check_task(task: Mapping[str, Any]) -> None:
    """Refuse what can be no job, or holds the value of a secret. Raises ValueError, which repeats no value."""
    if "service" in task:
        raise ValueError("sky.service: a service is no job, for it never ends; start it with `sky serve up`")
    literal = [name for name, value in _mapping(task.get("secrets")).items() if value is not None]
    if literal:
        raise ValueError(
            f"sky.secrets: {', '.join(map(str, literal))} must have no value; store it with `ainfinity secrets set "
            f"{literal[0]}`, and write `{literal[0]}: null`"
        )


def secret_names(task: Mapping[str, Any]) -> list[str]:
    """Return the names of the secrets that we supply: those without a value, unless SkyPilot itself holds them."""
    return [name for name in _mapping(task.get("secrets")) if not name.startswith("secrets:")]


def read_resources(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a task says of where it runs, as `resources` of a job: infra, gpus, nodes, spot.

    Of several choices it is the first. These are for people and for estimates; the task itself is what is launched.
    """
    first = _first_choice(_mapping(task.get("resources")))
    found: dict[str, Any] = {"infra": _infra(first) or ANY_INFRA}
    gpus, nodes = _gpus(first.get("accelerators")), task.get("num_nodes")
    if gpus:
        found["gpus"] = gpus
    if isinstance(nodes, int) and not isinstance(nodes, bool) and 1 <= nodes <= 1024:
        found["nodes"] = nodes
    if first.get("use_spot") is True:
        found["spot"] = True
    return found


def _first_choice(wanted: dict[str, Any]) -> dict[str, Any]:
    """The first alternative of `any_of` or `ordered`, with what stands beside them."""
    for key in ("any_of", "ordered"):
        inner = wanted.get(key)
        if isinstance(inner, list) and inner:
            return {**wanted, **_mapping(cast("list[Any]", inner)[0])}
    return wanted


def _infra(wanted: Mapping[str, Any]) -> str:
    parts = [wanted[key] for key in ("cloud", "region", "zone") if wanted.get(key)] if wanted.get("cloud") else []
    cloud, slash, rest = str(wanted.get("infra") or "/".join(map(str, parts))).partition("/")
    text = f"{cloud.lower()}{slash}{rest}"
    return text if _INFRA.fullmatch(text) else ""


def _gpus(wanted: Any) -> str:
    if isinstance(wanted, dict) and len(cast("dict[Any, Any]", wanted)) == 1:
        ((kind, count),) = cast("dict[Any, Any]", wanted).items()
        wanted = f"{kind}:{count}"
    return wanted if isinstance(wanted, str) and _GPUS.fullmatch(wanted) else ""


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}

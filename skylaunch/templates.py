"""The templates: YAML files that name their scripts, and the pinned packages of the environment made on a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import yaml

from ainfinity.schema.training_job import Resources

_FILES: Final = resources.files("skylaunch")


@dataclass(frozen=True, slots=True)
class Template:
    """What is the same in every task of a kind."""

    setup: str
    run: str
    envs: dict[str, str]
    resources: dict[str, Any]


def template_names(wanted: Resources) -> tuple[str, ...]:
    """Return the templates of a job, each laid over the one before it."""
    return ("deepspeed" if wanted.gpus else "cpu", *(("spot",) if wanted.spot else ()))


def read_template(wanted: Resources) -> Template:
    """Return the template of a job."""
    layers = [yaml.safe_load(_read(f"{name}.yaml")) for name in template_names(wanted)]
    found: dict[str, Any] = {}
    for key in ("envs", "resources"):
        found[key] = {name: value for layer in layers for name, value in layer.get(key, {}).items()}
    scripts = {name: script for layer in layers for name, script in layer.items() if name in ("setup", "run")}
    return Template(setup=read_scripts(scripts["setup"]), run=read_scripts(scripts["run"]), **found)


def read_scripts(names: Sequence[str]) -> str:
    """Return the text of scripts that run one after another in one shell."""
    return "\n".join(_read(name) for name in names)


@cache
def read_pins() -> str:
    """Return the pinned packages on one line."""
    lines = [line.strip() for line in _read("pins.txt").splitlines()]
    return " ".join(line for line in lines if line and not line.startswith("#"))


@cache
def _read(name: str) -> str:
    return _FILES.joinpath(name).read_text(encoding="utf-8")

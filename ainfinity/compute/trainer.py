"""How the trainer is started on this machine: its command line, its environment, its own copy of `training`."""

from __future__ import annotations

import os
import shutil
import site
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import ainfinity.compute
from ainfinity.compute.folder import AttemptFolder
from ainfinity.compute.port import LaunchRequest
from ainfinity.compute.redactor import SECRET_NAMES
from ainfinity.core.constants import ATTEMPT_MARK, DEADLINE_MARK

#: Where this installation's packages lie: a checkout, or site-packages.
_PACKAGES = Path(ainfinity.compute.__path__[0]).absolute().parents[1]
#: Settings of ours, some of them secret, are none of the trainer's business.
_OURS = "AINFINITY_"


def interpreter_of(request: LaunchRequest) -> str:
    """Return the Python interpreter that the attempt runs with."""
    return request.python or sys.executable


def torchrun_command(request: LaunchRequest, recipe: Path) -> list[str]:
    """Return the command that trains the recipe in the file `recipe`. Each argument is one word; no shell sees it."""
    return [
        interpreter_of(request),
        *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(request.ranks)),
        *("-m", "training.finetune", str(recipe)),
        *("--output", request.output_dir, "--checkpoints", request.checkpoint_dir),
    ]


def copy_code(folder: AttemptFolder) -> None:
    """Give the attempt its own copy of `training`, if it has none yet. Raises OSError."""
    if folder.code.exists():
        return
    aside = folder.path / f".code.{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(_PACKAGES / "training", aside / "training", ignore=shutil.ignore_patterns("__pycache__"))
    try:
        aside.rename(folder.code)
    except FileExistsError:
        shutil.rmtree(aside, ignore_errors=True)


def trainer_path(folder: AttemptFolder, base: Mapping[str, str]) -> str:
    """Return the PYTHONPATH of the trainer: our copy of its code before anything of the user's."""
    return os.pathsep.join(filter(None, (str(folder.code), base.get("PYTHONPATH", ""))))


def supervisor_path(base: Mapping[str, str]) -> str:
    """Return the PYTHONPATH of the supervisor: this installation first, unless Python finds it by itself."""
    found_anyway = str(_PACKAGES) in (*site.getsitepackages(), site.getusersitepackages())
    return os.pathsep.join(filter(None, ("" if found_anyway else str(_PACKAGES), base.get("PYTHONPATH", ""))))


def make_environment(
    request: LaunchRequest, base: Mapping[str, str], devices: Sequence[str], cache_dir: Path
) -> dict[str, str]:
    """Return the environment of supervisor and trainer, secrets included: it goes to the process and nowhere else.

    `base` is this process's own environment; what the user set there for numeric libraries stands.
    """
    environment = {key: value for key, value in base.items() if not key.startswith(_OURS)}
    environment |= request.env
    environment |= request.secrets
    if request.secrets:
        environment[SECRET_NAMES] = ",".join(request.secrets)
    environment = {**_defaults(request, devices, cache_dir), **environment}
    # A virtual environment's tools, such as ninja for DeepSpeed, are looked up on the path.
    tools = str(Path(interpreter_of(request)).absolute().parent)
    environment["PATH"] = os.pathsep.join(filter(None, (tools, environment.get("PATH", os.defpath))))
    environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    # Nothing is imported from the current folder, where a user may have a `training` of their own.
    environment["PYTHONSAFEPATH"] = "1"
    environment["PYTHONUNBUFFERED"] = "1"
    environment[ATTEMPT_MARK] = request.name
    if request.deadline is not None:
        environment[DEADLINE_MARK] = repr(request.deadline)
    if request.resume_step is not None:
        environment["AINFINITY_RESUME_STEP"] = str(request.resume_step)
    return environment


def _defaults(request: LaunchRequest, devices: Sequence[str], cache_dir: Path) -> dict[str, str]:
    # A helper of DeepSpeed that set-up built fits this interpreter's torch; without one it is built on first use.
    built = Path(interpreter_of(request)).absolute().parent.parent / "torch_extensions"
    cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    defaults = {
        "OMP_NUM_THREADS": str(max(1, cpus // request.ranks)),
        "TOKENIZERS_PARALLELISM": "false",
        "TORCH_EXTENSIONS_DIR": str(built if built.is_dir() else cache_dir / "torch_extensions"),
    }
    if not devices:
        defaults["DS_ACCELERATOR"] = "cpu"
    return defaults

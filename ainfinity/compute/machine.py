"""What this machine offers an attempt: GPUs, room on the disk, an interpreter with the trainer's packages."""

from __future__ import annotations

import errno
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ainfinity.core.exceptions import FolderUnwritable, MissingTool

#: What `training` cannot start without.
TRAINER_MODULES = ("torch", "transformers", "deepspeed")
#: An attempt is not started with less room than this: it could not even write its log. Bytes.
MIN_FREE = 64 << 20
_ASK_SECONDS = 30.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
_OLDEST_PYTHON = (3, 11)
_ASK = """
import importlib.util, json, sys
print(json.dumps([list(sys.version_info[:2]), [m for m in sys.argv[1:] if importlib.util.find_spec(m) is None]]))
"""


def find_devices(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the NVIDIA GPUs that may be used, as CUDA_VISIBLE_DEVICES takes them.

    Asks the variable itself if it is set, else nvidia-smi: importing torch for this would take seconds.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        # CUDA ignores everything from the first invalid name on.
        end = next((i for i, name in enumerate(names) if not name or name.startswith("-") or "No" in name), len(names))
        return tuple(names[:end])
    tool = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if tool is None:
        return ()
    try:
        done = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=_ASK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    gpus = [line for line in done.stdout.splitlines() if line.startswith("GPU ")]
    return tuple(str(index) for index in range(len(gpus))) if done.returncode == 0 else ()


def check_modules(python: str, modules: Sequence[str]) -> None:
    """Check that the interpreter can import `modules`, without importing them.

    Errors:
        MissingTool: it cannot, or is no interpreter that can be used.
    """
    if python == sys.executable:
        importlib.invalidate_caches()
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
    else:
        version, missing = _ask_interpreter(python, modules)
        if tuple(version) < _OLDEST_PYTHON:
            raise MissingTool(
                f"{python} is Python {version[0]}.{version[1]}; the trainer needs 3.11 or newer.",
                hint="Set resources.python to a newer interpreter.",
                field="resources.python",
            )
    if missing:
        how = "Run `make install`, or" if python == sys.executable else "Set resources.python to another one, or run"
        raise MissingTool(
            f"{', '.join(missing)} cannot be imported by {python}, so nothing can be trained with it.",
            hint=f"{how} `{python} -m pip install 'ainfinity[train]'`.",
            field="resources.python",
        )


def _ask_interpreter(python: str, modules: Sequence[str]) -> tuple[list[int], list[str]]:
    try:
        # -I: not a module that happens to lie in the current folder.
        done = subprocess.run(
            [python, "-I", "-c", _ASK, *modules], capture_output=True, text=True, timeout=_ASK_SECONDS, check=True
        )
        version, missing = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        raise MissingTool(
            f"{python} does not work as a Python interpreter.",
            hint="Set resources.python to one that has the trainer's packages, or leave it out.",
            field="resources.python",
        ) from None
    return version, missing


def check_folder(folder: Path) -> None:
    """Make the folder if need be and check that files can be written there.

    Errors:
        FolderUnwritable: they cannot, or the disk is nearly full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:  # Permission bits do not tell: read-only disks, root, quotas.
            file.write(b"x")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise unwritable(folder, error) from None
    if free < MIN_FREE:
        raise FolderUnwritable(
            f"The disk of {folder} has {free >> 20} MiB left; an attempt needs at least {MIN_FREE >> 20} MiB.",
            hint="Free some room, or set AINFINITY_DATA_DIR to a folder on another disk.",
            field="AINFINITY_DATA_DIR",
        )


def unwritable(folder: Path, error: OSError) -> FolderUnwritable:
    """Return the error to raise when `folder` cannot be written because of `error`."""
    # Copying a tree reports the text alone.
    if error.errno in _FULL or any(os.strerror(code) in str(error) for code in _FULL):
        return FolderUnwritable(
            f"The disk of {folder} is full.",
            hint="Free some room, or set AINFINITY_DATA_DIR to a folder on another disk.",
            field="AINFINITY_DATA_DIR",
        )
    return FolderUnwritable(
        f"{folder} cannot be written: {error.strerror or error}.",
        hint="Make it writable, or set AINFINITY_DATA_DIR to another folder.",
        field="AINFINITY_DATA_DIR",
    )

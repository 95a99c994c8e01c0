"""Merging an adapter into its base, in a process of its own: it needs the trainer's packages, and much memory."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ainfinity.core.exceptions import MissingTool, Refused, UsageError
from training.protocol import parse_line

_MODULES: Final = "torch, transformers, peft, safetensors"


def merge(adapter: Path, model: str, folder: Path, python: str = "") -> list[Path]:
    """Merge the adapter in a folder into the model and return the files of `folder`/merged.

    `python` is the interpreter with the trainer's packages, by default this one.

    Errors:
        UsageError: the job names no model. MissingTool: the interpreter lacks the packages. Refused: it failed.
    """
    if not model:
        raise UsageError("This job has no recipe, so its base model is not known.", hint="Pull the adapter instead.")
    interpreter = python if python and os.access(python, os.X_OK) else sys.executable
    environment = os.environ | {"PYTHONSAFEPATH": "1", "PYTHONPATH": _trainer_path()}
    checked = subprocess.run(
        [interpreter, "-c", f"import {_MODULES}"], capture_output=True, env=environment, check=False
    )
    if checked.returncode:
        raise MissingTool(
            f"Merging takes the trainer's packages, and {interpreter} lacks some.",
            hint="Install them with `pip install 'ainfinity[train]'`, or pull the adapter instead.",
        )
    ran = subprocess.run(
        [interpreter, "-m", "training.merge", str(adapter), "--model", model, "--output", str(folder / "merged")],
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        check=False,
    )
    if ran.returncode:
        failed = [line for line in map(parse_line, ran.stdout.splitlines()) if line is not None]
        data = failed[-1].data if failed else {}
        reason = data.get("message") or (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1]
        raise Refused(f"The adapter could not be merged: {reason}.", hint=str(data.get("hint") or ""))
    return sorted(path for path in (folder / "merged").rglob("*") if path.is_file())


def _trainer_path() -> str:
    """The folder that holds the trainer, before what else the interpreter is told to look through."""
    found = find_spec("training")
    place = str(Path(found.origin).parent.parent) if found is not None and found.origin else ""
    return os.pathsep.join(filter(None, (place, os.environ.get("PYTHONPATH", ""))))

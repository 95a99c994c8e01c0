"""The compiler and ninja, which DeepSpeed runs even to load a helper that is already built."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from training.errors import TrainingError


def find_own_tools() -> None:
    """Put this Python's own folder on PATH: pip installs ninja there, and torchrun may be called by its full path."""
    own = str(Path(sys.executable).parent)
    paths = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if own not in paths:
        os.environ["PATH"] = os.pathsep.join([own, *paths])


def missing_compiler() -> TrainingError | None:
    """The failure to report if g++ or ninja cannot be found."""
    missing = [tool for tool in ("g++", "ninja") if shutil.which(tool) is None]
    if not missing:
        return None
    install = {"g++": "install g++ (on Debian: apt install g++)", "ninja": "install ninja (pip install ninja)"}
    hint = " and ".join(install[tool] for tool in missing) + ", then run python -m training.prepare"
    message = f"DeepSpeed's helper for CPUs cannot be built without {' and '.join(missing)}"
    return TrainingError("compiler_missing", message, hint, shared=True)

"""Build DeepSpeed's gloo helper once, at set-up: python -m training.prepare

DeepSpeed compiles `deepspeed_shm_comm` when a process group first starts on CPUs. A build that was killed leaves a lock
file for which every later start waits for ever; it is removed here if no process holds it. The folder is torch's own,
TORCH_EXTENSIONS_DIR in the environment moves it.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

from training.errors import TrainingError
from training.toolchain import find_own_tools, missing_compiler

OPERATOR: Final = "deepspeed_shm_comm"


def build() -> Path | None:
    """Compile the helper, unless it is there. Returns its folder, or None where DeepSpeed does without one.

    Raises TrainingError `compiler_missing` or `build_failed`.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder
    from torch.utils.cpp_extension import _get_build_directory  # pyright: ignore[reportPrivateUsage]

    builder = ShareMemCommBuilder()
    if not builder.is_compatible(False):
        return None
    if (missing := missing_compiler()) is not None:
        raise missing
    folder = Path(_get_build_directory(OPERATOR, verbose=False))
    with _only_one_preparer(folder):
        if remove_stale_lock(folder):
            print(f"removed the lock of a build that died in {folder}", file=sys.stderr)
        try:
            builder.load(verbose=False)
        except (RuntimeError, OSError, ImportError) as error:
            raise TrainingError("build_failed", f"{OPERATOR} cannot be built in {folder}: {error}") from error
    return folder


def remove_stale_lock(folder: Path) -> bool:
    """Remove the build's lock file if no living process holds it open. Returns whether there was one to remove."""
    lock = folder / "lock"
    if not lock.exists() or _is_held(lock):
        return False
    lock.unlink(missing_ok=True)
    return True


def _is_held(lock: Path) -> bool:
    wanted = str(lock.resolve())
    for process in psutil.process_iter():
        try:
            if any(found.path == wanted for found in process.open_files()):
                return True
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue  # ended meanwhile, or another user's, who builds in a folder of his own
    return False


@contextmanager
def _only_one_preparer(folder: Path) -> Generator[None]:
    """Keep a second preparer out between looking at the lock and building."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".prepare.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Build and say where. Returns the exit code."""
    find_own_tools()
    try:
        folder = build()
    except TrainingError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return error.exit_code
    print(folder or "DeepSpeed does without its helper here", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

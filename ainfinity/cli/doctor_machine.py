"""Checks of the machine: system, interpreter, packages, compiler, room."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Final

from ainfinity.cli.doctor import Check
from ainfinity.core.config import Settings
from ainfinity.core.exceptions import AinfinityError

_GIB: Final = 1024**3
_TRAINER: Final = ("torch", "transformers", "deepspeed", "peft", "safetensors")
_HELPER: Final = "deepspeed_shm_comm"


def system() -> Check:
    """Which system this is; Linux is the one that is tested."""
    name = f"{platform.system()} {platform.release()} {platform.machine()}"
    if sys.platform == "win32":
        return Check("system", "failed", f"{name} is not supported", "Use WSL2: `wsl --install`.")
    if sys.platform != "linux" or "microsoft" in platform.release().lower():
        return Check("system", "warning", f"{name}: supported by design, and untested", "Please report what fails.")
    return Check("system", "ok", name)


def python() -> Check:
    """The interpreter."""
    version = f"Python {platform.python_version()} in {sys.prefix}"
    if sys.version_info < (3, 11):  # noqa: UP036  # someone may run the checkout by hand
        return Check("python", "failed", version, "Install Python 3.11 or newer.")
    return Check("python", "ok", version)


def packages() -> Check:
    """What the trainer needs; looked up and not imported, because that takes seconds."""
    found: list[str] = []
    missing: list[str] = []
    for name in _TRAINER:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        hint = "pip install 'ainfinity[train]', or set resources.python to an interpreter that has them."
        return Check("trainer", "failed", f"missing: {', '.join(missing)}", hint)
    return Check("trainer", "ok", ", ".join(found))


def _helper_folders(settings: Settings) -> list[Path]:
    """Return where DeepSpeed's helper for CPUs may have been built."""
    own = os.environ.get("TORCH_EXTENSIONS_DIR")
    roots = [Path(own)] if own else []
    roots += [Path(sys.prefix) / "torch_extensions", settings.cache_dir / "torch_extensions"]
    roots.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch_extensions")
    return [folder for root in roots for folder in (root / _HELPER, *root.glob(f"*/{_HELPER}")) if folder.is_dir()]


def compiler(settings: Settings) -> Check:
    """The compiler and ninja, which DeepSpeed runs on CPUs even to load a helper that is built."""
    own = str(Path(sys.executable).parent)
    path = os.pathsep.join((own, os.environ.get("PATH", os.defpath)))
    missing = [tool for tool in ("g++", "ninja") if shutil.which(tool, path=path) is None]
    if missing:
        steps = {"g++": "install g++ (Debian: apt install g++)", "ninja": "pip install ninja"}
        status = "warning" if shutil.which("nvidia-smi") else "failed"
        return Check("compiler", status, f"missing: {', '.join(missing)}", "; ".join(steps[tool] for tool in missing))
    built = any(next(folder.glob("*.so"), None) for folder in _helper_folders(settings))
    state = "DeepSpeed's helper is built" if built else "DeepSpeed's helper is built by the first job on a CPU"
    return Check("compiler", "ok", f"g++, ninja; {state}")


def build_lock(settings: Settings, *, fix: bool) -> Check:
    """A lock that a killed build left, for which every later start would wait for ever."""
    from training.prepare import remove_stale_lock

    locked = [folder for folder in _helper_folders(settings) if (folder / "lock").exists()]
    if not locked:
        return Check("build", "ok", "no lock of a build")
    if not fix:
        hint = "If none runs now: ainfinity doctor --fix, which leaves the lock of a living one alone."
        return Check("build", "warning", f"a build runs or has died in {locked[0]}", hint)
    removed = [folder for folder in locked if remove_stale_lock(folder)]
    if removed:
        return Check("build", "ok", f"removed the lock of a dead build in {removed[0]}", fixed=True)
    return Check("build", "ok", f"a build is running in {locked[0]}")


def gpus() -> Check:
    """The GPUs that jobs can use."""
    import subprocess

    if shutil.which("nvidia-smi") is None:
        return Check("gpus", "ok", "none found: jobs train on the CPU")
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("gpus", "warning", f"nvidia-smi does not answer ({type(error).__name__})", "Check the driver.")
    if done.returncode:
        return Check("gpus", "warning", "nvidia-smi finds no working driver", "Check the driver: run nvidia-smi.")
    return Check("gpus", "ok", "; ".join(done.stdout.strip().splitlines()) or "none")


def disk(settings: Settings) -> Check:
    """Free room where jobs are kept."""
    folder = settings.data_dir
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / _GIB
    hint = "Free some space, or set AINFINITY_DATA_DIR to a larger disk."
    status = "failed" if free < 1 else "warning" if free < 10 else "ok"
    return Check("disk", status, f"{free:.1f} GiB free in {folder}", hint)


def memory() -> Check:
    """Free memory. The demo takes about 6 GiB."""
    import psutil

    free = psutil.virtual_memory().available / _GIB
    status = "failed" if free < 1 else "warning" if free < 6 else "ok"
    return Check("memory", status, f"{free:.1f} GiB available", "Close something, or train a smaller model.")


def shared_memory() -> Check:
    """Room in /dev/shm, through which the ranks of a CPU job exchange tensors."""
    place = Path("/dev/shm")  # noqa: S108  # the system's own folder, only asked for its size
    if not place.is_dir():
        return Check("shm", "ok", "this system has no /dev/shm")
    free = shutil.disk_usage(place).free / _GIB
    if free < 0.25:
        hint = "Give the container more: docker run --shm-size=1g."
        return Check("shm", "warning", f"{free * 1024:.0f} MiB free in /dev/shm", hint)
    return Check("shm", "ok", f"{free:.1f} GiB free in /dev/shm")


def sky(settings: Settings) -> Check:
    """SkyPilot's API server, for jobs elsewhere. It is asked, and never started."""
    from importlib.util import find_spec

    from ainfinity.services.outside import OutsideService

    if find_spec("sky") is None:
        return Check("skypilot", "ok", "not installed: jobs run on this machine (pip install 'ainfinity[sky]')")
    try:
        found = OutsideService(settings.cache_dir).ask("health", refresh=True).value
    except AinfinityError as error:
        return Check("skypilot", "warning", f"not checked: {error.message}", error.hint)
    if not found["problem"]:
        return Check("skypilot", "ok", f"its API server {found['version']} answers at {found['endpoint']}")
    if found["local"] and not found["reachable"]:
        hint = "Jobs elsewhere need it: `ainfinity sky start`. Jobs on this machine do not."
        return Check("skypilot", "ok", f"no API server runs on this machine; {hint}")
    return Check("skypilot", "warning", found["problem"], found["hint"])

"""Checkpoints from which a run resumes exactly.

A checkpoint is written aside, flushed, marked with COMPLETED (which holds the manifest and the state) and only then
given its name, `step-000012`. One without the marker, or that differs from its manifest, is passed over for an older.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
import torch.distributed as dist

from training.errors import invalid
from training.files import FileEntry, damage, describe_files, replace_folder, write_durably

MARKER: Final = "COMPLETED"
_NAME: Final = re.compile(r"step-(\d+)")
_ENGINE_TAG: Final = "engine"


@dataclass(frozen=True)
class State:
    """Where a run is. `position` counts the rows taken from the stream of all epochs; with the seed, the data order.

    The learning rate is a function of the step and needs no state; the random generators of each rank lie beside.
    """

    step: int
    position: int
    world_size: int
    zero_stage: int
    attempt: str
    data_sha256: str
    eval_before: float | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint. `serial` rises with each one written here, also when a retry goes back in steps."""

    path: Path
    serial: int
    state: State
    files: list[FileEntry]


def find_checkpoint(folder: Path, attempt: str, resume_step: int | None) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint to go on from, and what was passed over on the way to it.

    The newest one, unless the attempt was told to go on from `resume_step` and has not written a newer one itself.
    Raises TrainingError `checkpoint_missing` if that step's checkpoint is not complete.
    """
    found, passed_over = _complete_checkpoints(folder)
    if resume_step is None or (found and found[0].state.attempt == attempt):
        candidates = found
    elif resume_step == 0:
        return None, passed_over
    else:
        candidates = [checkpoint for checkpoint in found if checkpoint.state.step == resume_step][:1]
    for checkpoint in candidates:
        if (fault := damage(checkpoint.path, checkpoint.files)) is None:
            return checkpoint, passed_over
        passed_over.append(f"{checkpoint.path.name}: {fault}")
    if resume_step is not None and resume_step > 0 and candidates is not found:
        steps = ", ".join(map(str, sorted(checkpoint.state.step for checkpoint in found))) or "none"
        raise invalid(
            "checkpoint_missing",
            f"{folder} holds no complete checkpoint of step {resume_step}",
            f"retry from one of the steps that are complete: {steps}",
        )
    return None, passed_over


def save_checkpoint(engine: Any, folder: Path, state: State, *, keep_last: int, adapter_only: bool) -> Path:
    """Write the checkpoint of `state` with all ranks together; afterwards it is complete and on disk."""
    path = folder / f"step-{state.step:06d}"
    writing = folder / f".{path.name}.writing"
    rank = dist.get_rank()
    if rank == 0:
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir(parents=True)
    dist.barrier()
    engine.save_checkpoint(str(writing), tag=_ENGINE_TAG, save_latest=False, exclude_frozen_parameters=adapter_only)
    torch.save(_random_state(), writing / f"random-{rank}.pt")
    dist.barrier()
    if rank == 0:
        _complete(writing, path, state)
        _remove_old(folder, keep_last)
    dist.barrier()
    return path


def load_checkpoint(engine: Any, checkpoint: Checkpoint, *, adapter_only: bool) -> None:
    """Put engine and random generators of this rank back to where they were."""
    engine.load_checkpoint(str(checkpoint.path), tag=_ENGINE_TAG, load_module_strict=not adapter_only)
    own = checkpoint.path / f"random-{dist.get_rank()}.pt"
    if own.exists():  # not for a rank that the checkpoint's run did not have
        _restore_random_state(torch.load(own, weights_only=False))


def _complete(writing: Path, path: Path, state: State) -> None:
    previous, _ = _complete_checkpoints(path.parent)
    marker = {
        "version": 1,
        "serial": previous[0].serial + 1 if previous else 1,
        "state": asdict(state),
        "files": describe_files(writing),
    }
    write_durably(writing / MARKER, json.dumps(marker, indent=1) + "\n")
    replace_folder(writing, path)


def _complete_checkpoints(folder: Path) -> tuple[list[Checkpoint], list[str]]:
    """All checkpoints with a marker, newest first, and the names of those without one."""
    found: list[Checkpoint] = []
    passed_over: list[str] = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        if not (path.is_dir() and _NAME.fullmatch(path.name)):
            continue
        try:
            marker = cast("dict[str, Any]", json.loads((path / MARKER).read_text(encoding="utf-8")))
            found.append(Checkpoint(path, int(marker["serial"]), State(**marker["state"]), marker["files"]))
        except FileNotFoundError:
            passed_over.append(f"{path.name}: it was not written to its end")
        except (OSError, ValueError, TypeError, KeyError):
            passed_over.append(f"{path.name}: its {MARKER} file cannot be read")
    found.sort(key=lambda checkpoint: checkpoint.serial, reverse=True)
    return found, passed_over


def _remove_old(folder: Path, keep_last: int) -> None:
    found, _ = _complete_checkpoints(folder)
    for checkpoint in found[keep_last:]:
        doomed = checkpoint.path.with_name(f".{checkpoint.path.name}.removing")
        checkpoint.path.rename(doomed)  # so that a crash half-way through leaves nothing that looks like a checkpoint
        shutil.rmtree(doomed, ignore_errors=True)


def _random_state() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def _restore_random_state(saved: dict[str, Any]) -> None:
    random.setstate(saved["python"])
    np.random.set_state(saved["numpy"])
    torch.set_rng_state(saved["torch"])
    if saved["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(saved["cuda"])

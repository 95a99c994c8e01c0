"""Starting the process group, and doing things on all ranks so that one rank's fault is everyone's."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from training.errors import TrainingError
from training.failures import as_failure
from training.toolchain import find_own_tools, missing_compiler

T = TypeVar("T")


def start() -> torch.device:
    """Join the process group that torchrun describes in the environment. Returns the device of this rank."""
    import deepspeed

    find_own_tools()
    device = torch.device("cpu")
    if torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    try:
        deepspeed.init_distributed("nccl" if device.type == "cuda" else "gloo", verbose=False)
    except (RuntimeError, OSError, ImportError) as error:
        missing = missing_compiler() if device.type == "cpu" else None
        if missing is not None:
            raise missing from error
        raise
    return device


def together(action: Callable[[], T]) -> T:
    """Run `action` on every rank; if it fails on any of them, raise the lowest rank's failure on all."""
    failure: TrainingError | None = None
    result: T | None = None
    try:
        result = action()
    except Exception as error:  # noqa: BLE001, whatever it is, the other ranks have to hear of it
        failure = as_failure(error)
    failures: list[TrainingError | None] = [None] * dist.get_world_size()
    dist.all_gather_object(failures, failure)
    for found in failures:
        if found is not None:
            found.shared = True
            raise found
    return cast("T", result)


def from_rank_zero(action: Callable[[], T]) -> T:
    """What `action` returns on rank 0, on every rank. It runs only there, and its failure is raised everywhere."""
    box: list[Any] = [together(lambda: action() if dist.get_rank() == 0 else None)]
    dist.broadcast_object_list(box, src=0)
    return cast("T", box[0])


def gather_numbers(values: list[float], device: torch.device) -> list[list[float]]:
    """The numbers of every rank, in the order of ranks, so that a sum over them is the same everywhere."""
    mine = torch.tensor(values, dtype=torch.float64, device=device)
    everyones = [torch.zeros_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everyones, mine)
    return [numbers.tolist() for numbers in everyones]


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that this rank has used: allocated on its GPU, or resident in its process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

"""What a run ran on: recorded in the `started` line, so that it can be repeated."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any, Final

import torch

_PACKAGES: Final = ("torch", "transformers", "deepspeed", "peft", "tokenizers", "safetensors")


def versions() -> dict[str, str]:
    """Python and the packages that decide the numbers."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}}


def hardware() -> dict[str, Any]:
    """This machine: processor, cores, memory in bytes, GPUs by name."""
    count = torch.cuda.device_count()
    return {
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": [torch.cuda.get_device_name(index) for index in range(count)],
    }

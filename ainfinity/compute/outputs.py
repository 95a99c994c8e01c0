"""Checking that an attempt's files lie where it said, as it said."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any


def find_fault(folder: Path, files: Sequence[Mapping[str, Any]]) -> str:
    """Check each `{path, size, sha256}` and return "" or what is wrong with the first that is not as it should be.

    A path is relative to `folder`, or absolute; either way it must lead to a file inside, links followed. What is
    right is also forced to the disk.
    """
    if not files:
        return "the attempt named no files"
    root = folder.resolve()
    for entry in files:
        fault = _find_fault_of(root, entry)
        if fault:
            return f"{entry.get('path')}: {fault}"
    return ""


def inside_job(path: str, job_id: str, folder: str) -> str:
    """Return a path of any machine below the job's `output` or `checkpoints` relative to that.

    Errors:
        ValueError: it lies elsewhere. What a trainer says leads to no other place than its job's.
    """
    parts = PurePosixPath(path).parts
    marks = [at for at in range(len(parts) - 2) if parts[at] == job_id and parts[at + 1] == folder]
    if not marks or ".." in parts:
        raise ValueError(path)
    return "/".join(parts[marks[0] + 2 :])


def _find_fault_of(root: Path, entry: Mapping[str, Any]) -> str:
    try:
        path = (root / str(entry["path"])).resolve()
        size, wanted = int(entry["size"]), str(entry["sha256"])
    except (KeyError, TypeError, ValueError, OSError, RuntimeError):
        return "the entry is not a path with a size and a sha256"
    if not path.is_relative_to(root):
        return f"lies outside {root}"
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                return f"has {found} bytes, not {size}"
            if hashlib.file_digest(file, "sha256").hexdigest() != wanted.lower():
                return "its content is not what was written (sha256 differs)"
            os.fsync(file.fileno())
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return ""

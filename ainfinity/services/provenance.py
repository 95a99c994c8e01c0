"""Where a job came from: the commit and the uncommitted changes of the folder it was submitted from."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

from ainfinity.core.redact import redact

#: A larger diff is kept as its hash alone.
_MAX_DIFF = 256 * 1024
_TIMEOUT = 5.0


def source_of(folder: Path) -> dict[str, Any]:
    """Return `commit`, `dirty` and, where something is uncommitted, `diff` (redacted) and `diff_sha256`.

    An empty dict where the folder is no git checkout or git is not there.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    found: dict[str, Any] = {"commit": commit.strip(), "dirty": False}
    diff = _git(folder, "diff", "HEAD", "--no-color", "--no-ext-diff")
    if diff:
        found["dirty"] = True
        found["diff_sha256"] = hashlib.sha256(diff.encode()).hexdigest()
        if len(diff) <= _MAX_DIFF:
            found["diff"] = redact(diff)
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}  # a reader must not touch the user's index
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            env=environment,
            timeout=_TIMEOUT,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None

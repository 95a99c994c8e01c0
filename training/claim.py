"""Who may write to a checkpoint folder: one attempt of one job, in one copy.

The file CLAIM names the attempt and its SkyPilot task. The same pair again is a recovery and goes on; a newer attempt
takes over; another task of the same attempt is a second copy, as is one that starts while the first still runs here.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

from training.errors import EXIT_SECOND_COPY, TrainingError, invalid
from training.files import write_durably

_ATTEMPT: Final = re.compile(r"(?P<job>.*)-a(?P<number>\d+)")
_NO_LOCKS_HERE: Final = {errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL}


@dataclass(frozen=True)
class Claim:
    """What CLAIM holds. `restarts` counts the recoveries of this attempt; `token` tells copies that raced apart."""

    attempt: str
    task: str
    restarts: int
    token: str


class ClaimedFolder:
    """A checkpoint folder that this process owns until it ends or a newer attempt takes it over."""

    def __init__(self, folder: Path, attempt: str, task: str) -> None:
        """Claim it. Raises TrainingError `second_copy`, or `checkpoints_of_another_job`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "CLAIM"
        self._lock = _lock(folder, attempt)
        before = read_claim(folder)
        restarts = 0 if before is None else _restarts_after(before, attempt, task, folder)
        self.claim = Claim(attempt=attempt, task=task, restarts=restarts, token=uuid.uuid4().hex)
        write_durably(self._path, json.dumps(asdict(self.claim)) + "\n")

    def check(self) -> None:
        """Raise TrainingError `second_copy` if another attempt or copy has taken the folder over."""
        now = read_claim(self._path.parent)
        if now is not None and now.token != self.claim.token:
            raise _second_copy(f"{now.attempt or 'an unnamed run'} has taken over {self._path.parent}")

    def release(self) -> None:
        """Let go of this machine's lock; CLAIM stays, for the next start of the same attempt."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _restarts_after(before: Claim, attempt: str, task: str, folder: Path) -> int:
    if before.attempt == attempt:
        if before.task != task:
            raise _second_copy(f"task {before.task or '(none)'} of attempt {attempt} already works in {folder}")
        return before.restarts + 1
    if before.attempt and attempt:
        (old_job, old_number), (job, number) = _split(before.attempt), _split(attempt)
        if old_job != job:
            raise invalid(
                "checkpoints_of_another_job",
                f"the checkpoint folder {folder} belongs to {before.attempt}",
                "choose another folder with --checkpoints, or delete this one if its job is no longer wanted",
            )
        if number < old_number:
            raise _second_copy(f"{before.attempt}, a newer attempt than {attempt}, works in {folder}")
    return 0


def _split(attempt: str) -> tuple[str, int]:
    match = _ATTEMPT.fullmatch(attempt)
    return (match["job"], int(match["number"])) if match else (attempt, 0)


def read_claim(folder: Path) -> Claim | None:
    """The claim on a checkpoint folder, if there is one."""
    try:
        found = cast("dict[str, Any]", json.loads((folder / "CLAIM").read_text(encoding="utf-8")))
        return Claim(**found)
    except (FileNotFoundError, ValueError, TypeError):
        return None  # nobody's: it is written in one step, so text that cannot be read never was a claim


def _lock(folder: Path, attempt: str) -> int | None:
    """Hold a lock of this attempt for as long as the process lives; None where the file system has no locks."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", attempt) or "unnamed"
    descriptor = os.open(folder / f".{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in _NO_LOCKS_HERE:
            return None
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            raise _second_copy(f"attempt {attempt or '(unnamed)'} already runs in {folder} on this machine") from None
        raise
    return descriptor


def _second_copy(message: str) -> TrainingError:
    return TrainingError("second_copy", message, "nothing is to be done: the other copy goes on", EXIT_SECOND_COPY)

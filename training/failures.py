"""From any exception to the `failed` line: a stable code, a message, and what to do next."""

from __future__ import annotations

import errno
import sys
import traceback
from typing import Final

from training.errors import TrainingError

_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN: Final = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG}
_FULL_DISK: Final = (
    "PytorchStreamWriter",
    "inline_container.cc",
    "iostream error",
    "No space left on device",
    "File too large",
)
_LOST_PEER: Final = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused")


def as_failure(error: BaseException) -> TrainingError:
    """The failure that the exception means. What nobody foresaw is `internal`, with its traceback on stderr."""
    match error:
        case TrainingError():
            return error
        case OSError(errno=code) if code in _FULL:
            return _disk_full()
        case OSError(errno=code) if code in _FORBIDDEN:
            path = f" {error.filename}" if error.filename else ""
            message = f"the file or folder{path} cannot be written: {error.strerror}"
            return TrainingError("not_writable", message, "check its permissions, or choose another --output")
        case MemoryError():
            return _out_of_memory(str(error))
        case _:
            return _by_message(error)


def _by_message(error: BaseException) -> TrainingError:
    """torch raises RuntimeError for nearly everything; only the words tell the cases apart."""
    text = str(error)
    if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text or "not enough memory" in text:
        return _out_of_memory(text)
    if any(words in text for words in _FULL_DISK):
        return _disk_full()
    if any(words in text for words in _LOST_PEER):
        hint = "look in the log for what killed it; often the machine ran out of memory"
        return TrainingError("rank_lost", "another process of this run has ended without a word", hint)
    traceback.print_exception(error, file=sys.stderr)
    message = f"{type(error).__name__}: {text}"[:2000]
    return TrainingError("internal", message, "look in the log for the traceback, and report it as a bug")


def _disk_full() -> TrainingError:
    return TrainingError("disk_full", "the disk is full or a quota is reached", "free some space, or lower keep_last")


def _out_of_memory(text: str) -> TrainingError:
    reason = text.strip().splitlines()[0][:300] if text.strip() else "an allocation failed"
    hint = "lower micro_batch_size or max_length, set gradient_checkpointing: true, or raise zero_stage"
    return TrainingError("out_of_memory", f"memory ran out: {reason}", hint)

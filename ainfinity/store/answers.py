"""Answers from outside, kept in files: one a question, with when it was asked and what went wrong since.

Whoever asked writes the file for all: a front, a process that it started, or the worker, which sees much of it anyway.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ainfinity.core.utils import make_folder

#: How often a waiting front looks whether the one that asks is done, in seconds.
_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Kept:
    """What a file holds. `at` is when the value was asked for, `done` when that or a failure was written."""

    value: Any = None
    at: float = 0.0
    done: float = 0.0
    error: Mapping[str, str] = field(default_factory=dict[str, str])


class AnswerFiles:
    """The files of one folder. A file that cannot be read is one that was never written: answers come again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, question: str, arguments: Mapping[str, Any]) -> Kept | None:
        """Return what is kept for the question with these arguments."""
        try:
            found: Any = json.loads(self._path(question, arguments).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(found, dict):
            return None
        kept = cast("dict[str, Any]", found)
        try:
            error = {str(key): str(value) for key, value in dict(kept["error"]).items()}
            return Kept(kept["value"], float(kept["at"]), float(kept["done"]), error)
        except (KeyError, TypeError, ValueError):
            return None

    def write(self, question: str, arguments: Mapping[str, Any], kept: Kept) -> None:
        """Keep an answer; whoever reads sees the old one or this one, whole. Errors: FolderUnwritable, OSError."""
        path = self._path(question, arguments)
        make_folder(path.parent)
        aside = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
        text = json.dumps({"value": kept.value, "at": kept.at, "done": kept.done, "error": dict(kept.error)})
        try:
            aside.write_text(text, encoding="utf-8")
            aside.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise

    @contextlib.contextmanager
    def asking(self, question: str, arguments: Mapping[str, Any], patience: float) -> Generator[bool]:
        """Be the only one, in any process, who asks this; False if another still does after `patience` seconds.

        Errors:
            FolderUnwritable, OSError.
        """
        path = self._path(question, arguments).with_suffix(".lock")
        make_folder(path.parent)
        give_up = time.monotonic() + patience
        with path.open("w", encoding="utf-8") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() >= give_up:
                        yield False
                        return
                    time.sleep(_POLL)
                else:
                    yield True  # closing the file lets go of the lock
                    return

    def _path(self, question: str, arguments: Mapping[str, Any]) -> Path:
        key = json.dumps(arguments, sort_keys=True)
        return self.folder / f"{question}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"

"""A first look at training data, cheap enough for every submit: is it there, is it chat JSONL, what is its hash.

The trainer looks deeper (masks, lengths); this look exists so that nothing is launched on a file that cannot work.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ainfinity.core.exceptions import DataInvalid

#: Lines that are parsed; of larger files the rest is only counted and hashed.
_PARSED = 20_000


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What a data file is: the SHA-256 of its bytes, its rows, its size in bytes."""

    sha256: str
    rows: int
    size: int


def look_at(path: str, *, field: str = "recipe.data") -> DataFacts:
    """Read a chat JSONL file once.

    Errors:
        DataInvalid: it is missing, empty, or a line is not a chat; the message names file and line.
    """
    digest = hashlib.sha256()
    rows = size = 0
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe or a device might never end
            raise OSError(0, "it is no regular file")
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, 1):
                digest.update(line)
                size += len(line)
                if not line.strip():
                    continue
                rows += 1
                if rows <= _PARSED:
                    _check_line(line, path, number, field)
    except FileNotFoundError:
        raise DataInvalid(
            f"{path}: there is no such file.", hint=f"Set {field} to a JSONL file of chats.", field=field
        ) from None
    except (OSError, ValueError) as error:  # the latter for a path that holds a NUL
        reason = getattr(error, "strerror", None) or error
        raise DataInvalid(
            f"{path!r}: {reason}.", hint=f"Set {field} to a file that can be read.", field=field
        ) from None
    if not rows:
        raise DataInvalid(f"{path}: the file is empty.", hint=f"{field} needs at least one chat.", field=field)
    return DataFacts(digest.hexdigest(), rows, size)


def _check_line(line: bytes, path: str, number: int, field: str) -> None:
    problem = _problem(line)
    if problem:
        raise DataInvalid(
            f"{path}:{number}: {problem}.",
            hint='Each line must be {"messages": [{"role": …, "content": …}, …]}.',
            field=field,
        )


def _problem(line: bytes) -> str:
    try:
        # Not json.loads(bytes), which guesses UTF-16 and UTF-32: the trainer reads UTF-8.
        row: Any = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "the line is not UTF-8"
    except (ValueError, RecursionError) as error:
        return f"the line is not JSON ({getattr(error, 'msg', 'too deeply nested')})"
    if not isinstance(row, dict):
        return "the line is not a JSON object"
    messages: Any = cast("dict[str, Any]", row).get("messages")
    if not isinstance(messages, list) or not messages:
        return '"messages" is missing or empty'
    for message in cast("list[Any]", messages):
        if not isinstance(message, dict) or not isinstance(cast("dict[str, Any]", message).get("role"), str):
            return "a message has no role"
        content = cast("dict[str, Any]", message).get("content")
        if not isinstance(content, str):
            return "a message has no text content"
    return ""

"""Chat JSONL files: reading with errors that name the line, and encoding to rows of a bounded length."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from training.errors import TrainingError, invalid
from training.masking import ChatEncoder, Encoded, Message

ROLES: Final = ("system", "developer", "user", "assistant", "tool")
_ENCODE_BATCH: Final = 1000
_NAMED_LINES: Final = 5


@dataclass(frozen=True)
class Chat:
    """One row of a file, with its line number (from 1)."""

    line: int
    messages: list[Message]


@dataclass(frozen=True)
class Row:
    """One encoded chat."""

    line: int
    ids: list[int]
    trained: list[bool]

    @property
    def targets(self) -> int:
        """How many of its tokens the loss counts."""
        return sum(self.trained)


@dataclass(frozen=True)
class Dataset:
    """The rows that can be trained on, and what became of the others."""

    rows: list[Row]
    dropped: int = 0
    truncated: int = 0

    @property
    def tokens(self) -> int:
        """Tokens in all rows."""
        return sum(len(row.ids) for row in self.rows)

    @property
    def targets(self) -> int:
        """Tokens that the loss counts."""
        return sum(row.targets for row in self.rows)


def read_chats(path: Path) -> tuple[list[Chat], str]:
    """All chats of a JSONL file and the file's sha256. Raises TrainingError `data_invalid` naming file and line."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise invalid("data_invalid", f"the data file {path} does not exist", "check `data` and `eval_data`") from None
    except OSError as error:
        raise invalid("data_invalid", f"the data file {path} cannot be read: {error.strerror}") from None
    chats: list[Chat] = []
    # Only the line feed ends a line of JSONL: JSON text may hold U+2028 and other separators that splitlines() takes.
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if line.strip():
            chats.append(Chat(number, _parse_row(line, f"{path}:{number}")))
    if not chats:
        raise invalid("data_invalid", f"the data file {path} is empty", f"write one chat a line: {_EXAMPLE}")
    return chats, hashlib.sha256(raw).hexdigest()


_EXAMPLE: Final = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}'


def _parse_row(line: bytes, where: str) -> list[Message]:
    try:
        row: object = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise invalid("data_invalid", f"{where}: the line is not UTF-8 text", "save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise invalid(
            "data_invalid", f"{where}: the line is not JSON: {reason}", f"write one chat a line: {_EXAMPLE}"
        ) from None
    messages = cast("dict[str, Any]", row).get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        found = (
            f"; it has {', '.join(map(str, cast('dict[str, Any]', row)))[:80]}" if isinstance(row, dict) and row else ""
        )
        raise invalid("data_invalid", f'{where}: the row has no list of "messages"{found}', f"write it as {_EXAMPLE}")
    return [
        _check_message(message, f"{where}: message {index}")
        for index, message in enumerate(cast("list[Any]", messages), 1)
    ]


def _check_message(message: object, where: str) -> Message:
    if not isinstance(message, dict):
        raise invalid("data_invalid", f"{where} is not an object with role and content")
    checked = cast("Message", message)
    role, content = checked.get("role"), checked.get("content")
    if role not in ROLES:
        raise invalid("data_invalid", f"{where} has the unknown role {role!r}", f"use one of {', '.join(ROLES)}")
    if not isinstance(content, str) and not (content is None and checked.get("tool_calls")):
        raise invalid("data_invalid", f"{where} has no text as its content", 'write "content": "..."')
    return checked


def hold_out(chats: Sequence[Chat], rows: int, seed: int) -> tuple[list[Chat], list[Chat]]:
    """Split off `rows` chats for evaluation, the same for the same seed. Returns (train, held out) in file order."""
    if rows >= len(chats):
        raise invalid(
            "data_invalid", f"eval_rows is {rows} and data has only {len(chats)} rows", "lower eval_rows or add data"
        )
    held_out = set(random.Random(f"held out {seed}").sample(range(len(chats)), rows))  # noqa: S311
    train = [chat for index, chat in enumerate(chats) if index not in held_out]
    return train, [chats[index] for index in sorted(held_out)]


def encode_chats(
    chats: Sequence[Chat],
    encoder: ChatEncoder,
    *,
    source: str,
    max_length: int,
    over_length: Literal["drop", "truncate", "error"],
) -> Dataset:
    """Encode and bound the chats of one file, called `source` in messages.

    A row without a single trained token is an error, `all_masked`: it would train to loss 0 or NaN unseen. A row whose
    trained tokens all lie beyond max_length is dropped and counted.
    """
    rows: list[Row] = []
    masked: list[int] = []
    dropped = truncated = 0
    for start in range(0, len(chats), _ENCODE_BATCH):
        batch = chats[start : start + _ENCODE_BATCH]
        for chat, encoded in zip(batch, _encode(batch, encoder, source), strict=True):
            ids, trained = encoded.ids, encoded.trained
            if not any(trained):
                masked.append(chat.line)
            elif len(ids) <= max_length:
                rows.append(Row(chat.line, ids, trained))
            elif over_length == "error":
                raise invalid(
                    "data_invalid",
                    f"{source}:{chat.line}: the row has {len(ids)} tokens and max_length is {max_length}",
                    "raise max_length, or set over_length: truncate or drop",
                )
            elif over_length == "drop" or not any(trained[:max_length]):
                dropped += 1
            else:
                truncated += 1
                rows.append(Row(chat.line, ids[:max_length], trained[:max_length]))
    _refuse_untrainable(source, masked, len(rows), max_length)
    return Dataset(rows, dropped, truncated)


def _encode(batch: Sequence[Chat], encoder: ChatEncoder, source: str) -> list[Encoded]:
    try:
        return encoder.encode([chat.messages for chat in batch])
    except TrainingError as error:
        if len(batch) == 1:
            raise invalid(error.code, f"{source}:{batch[0].line}: {error.message}", error.hint) from None
    return [encoded for chat in batch for encoded in _encode([chat], encoder, source)]  # again, to find the line


def _refuse_untrainable(source: str, masked: list[int], trainable: int, max_length: int) -> None:
    if masked:
        lines = ", ".join(map(str, masked[:_NAMED_LINES])) + (" …" if len(masked) > _NAMED_LINES else "")
        raise invalid(
            "all_masked",
            f"{source}: {len(masked)} rows have no token to train, on line {lines}",
            "give each chat an assistant message, or set train_on: all",
        )
    if not trainable:
        raise invalid(
            "all_masked",
            f"{source}: no row has a token to train within max_length {max_length}",
            "raise max_length, or shorten the prompts",
        )

"""`ainfinity new`: look at the data, and write a job file to begin with."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from ainfinity.cli.output import say, write, write_json
from ainfinity.core.constants import EXIT_OK
from ainfinity.core.exceptions import DataInvalid, FolderUnwritable, NotFound, Refused

#: Rows whose shape is looked at; all are counted and checked.
_LOOKED_AT: Final = 20_000
#: Characters a token, at the low end for plain text, so that the proposed length rather is too large.
_CHARACTERS: Final = 3
_LENGTHS: Final = (256, 512, 1024, 2048, 4096)
#: What other formats call their columns, and how a row of them becomes a chat.
_FORMATS: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (
        ("prompt", "completion"),
        '{messages: [{role:"user",content:.prompt},{role:"assistant",content:.completion}]}',
    ),
    (
        ("instruction", "output"),
        '{messages: [{role:"user",content:.instruction},{role:"assistant",content:.output}]}',
    ),
    (
        ("question", "answer"),
        '{messages: [{role:"user",content:.question},{role:"assistant",content:.answer}]}',
    ),
    (
        ("conversations",),
        '{messages: [.conversations[] | {role: ({human:"user",gpt:"assistant"}[.from] // .from), content: .value}]}',
    ),
)


@dataclass(slots=True)
class Shape:
    """What the rows of a chat file are like. Lengths are in characters."""

    rows: int = 0
    messages: int = 0
    longest: int = 0
    longest_line: int = 0
    untrained: int = 0
    first_untrained: int = 0
    roles: dict[str, int] = field(default_factory=dict[str, int])


def new_job(model: str, data: Path, output: Path | None, *, force: bool, as_json: bool) -> int:
    """Write a commented job file for a model and data. Errors: NotFound, DataInvalid, Refused, FolderUnwritable."""
    from ainfinity.schema.new_job import job_text

    if output is not None and output.exists() and not force:
        raise Refused(f"{output} exists.", hint="Choose another name, or --force to replace it.", field="output")
    folder = (output.parent if output else Path()).absolute()
    model = _model(model, folder)
    shape = look(data)
    recipe = _recipe(model, _relative(data, folder), shape)
    slug = re.sub(r"[^a-z0-9]+", "-", data.stem.lower())[:48].strip("-") or "job"
    target = str(output) if output else "FILE"
    text = job_text(slug, recipe, f"{_about(data, shape)}\nLaunch it: ainfinity launch {target} [key=value ...]")
    if output is not None:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise FolderUnwritable(
                f"{output} cannot be written: {error.strerror}.", hint="Choose another place."
            ) from None
    if as_json:
        write_json(
            {"path": str(output) if output else None, "text": text, "rows": shape.rows, "longest": shape.longest}
        )
    elif output is None:
        write(text.rstrip("\n"))
    else:
        write(str(output))
    _tell(shape, data, output)
    return EXIT_OK


def _tell(shape: Shape, data: Path, output: Path | None) -> None:
    roles = ", ".join(f"{count} {role}" for role, count in sorted(shape.roles.items()))
    longest = f"the longest row has {shape.longest} characters (line {shape.longest_line})"
    say(f"{data}: {shape.rows} rows; {roles} messages; {longest}.")
    if shape.untrained:
        rows = f"{shape.untrained} rows have no assistant message and will train nothing"
        say(f"Note: {rows}, the first in line {shape.first_untrained}.")
    if output is not None:
        say(f"Look through {output}, then: `ainfinity launch {output}`.")


def _about(data: Path, shape: Shape) -> str:
    mean = shape.messages / max(1, min(shape.rows, _LOOKED_AT))
    return f"{data.name}: {shape.rows} rows of {mean:.1f} messages, the longest of {shape.longest} characters."


def _model(model: str, folder: Path) -> str:
    path = Path(os.path.expanduser(model))
    if path.is_dir():
        if not (path / "config.json").exists():
            say(f"Note: {path} holds no config.json; is it a model?")
        return _relative(path, folder)
    if model.startswith((".", "/", "~")):
        raise NotFound(
            f"There is no folder {path}.", hint="Give a model's folder, or its name on the hub.", field="model"
        )
    return model


def _relative(path: Path, folder: Path) -> str:
    """Return a path as the job file names it: relative where both lie together, so that the folder can be moved."""
    absolute = os.path.abspath(path)
    relative = os.path.relpath(absolute, folder)
    return absolute if relative.startswith("..") else os.path.join(".", relative)


def _recipe(model: str, data: str, shape: Shape) -> dict[str, Any]:
    tokens = shape.longest // _CHARACTERS
    length = next((length for length in _LENGTHS if length >= tokens), _LENGTHS[-1])
    held_out = min(100, shape.rows // 20)
    recipe: dict[str, Any] = {"model": model, "data": data}
    if held_out:
        recipe["eval_rows"] = held_out
    return recipe | {"lora": {"r": 8, "alpha": 16}, "max_length": length, "epochs": 1, "lr": 2e-4}


def look(data: Path) -> Shape:
    """Check every row of a chat JSONL file, and return what they are like. Errors: DataInvalid, with the line."""
    from ainfinity.services.data import look_at

    _name_other_format(data)
    shape = Shape(rows=look_at(str(data), field="data").rows)
    with data.open("rb") as stream:
        looked = 0
        for line_number, line in enumerate(stream, 1):
            if line.strip():
                _add(shape, json.loads(line)["messages"], line_number)
                looked += 1
                if looked == _LOOKED_AT:
                    break
    if shape.untrained == looked:
        raise DataInvalid(
            f"{data}: no row has an assistant message, so nothing would be trained.",
            hint='Answers are messages with "role": "assistant".',
            field="data",
        )
    return shape


def _add(shape: Shape, messages: list[dict[str, str]], line: int) -> None:
    for message in messages:
        role = message["role"]
        shape.roles[role] = shape.roles.get(role, 0) + 1
    shape.messages += len(messages)
    length = sum(len(message["content"]) for message in messages)
    if length > shape.longest:
        shape.longest, shape.longest_line = length, line
    if all(message["role"] != "assistant" for message in messages):
        shape.untrained += 1
        shape.first_untrained = shape.first_untrained or line


def _name_other_format(data: Path) -> None:
    """Refuse, by name and with the way out, the formats that people have instead of chats."""
    try:
        with data.open("rb") as stream:
            number, first = next(((number, line) for number, line in enumerate(stream, 1) if line.strip()), (1, b""))
    except OSError:
        return  # the full look says what is wrong
    if first.lstrip().startswith(b"["):
        hint = f"Write one row a line: jq -c '.[]' {data.name} > rows.jsonl"
        raise DataInvalid(f"{data}:{number}: is one JSON array, not JSONL.", hint=hint, field="data")
    if first.startswith(b"PAR1"):
        hint = "Write its rows as JSONL, for example with pandas: to_json(path, orient='records', lines=True)."
        raise DataInvalid(f"{data}: is a Parquet file, not JSONL.", hint=hint, field="data")
    try:
        row: Any = json.loads(first)
    except ValueError:
        return
    if not isinstance(row, dict) or "messages" in row:
        return
    keys = set(cast("dict[str, Any]", row))
    for wanted, program in _FORMATS:
        if keys.issuperset(wanted):
            names = "/".join(wanted)
            hint = f"Turn them into chats: jq -c '{program}' {data.name} > chats.jsonl"
            raise DataInvalid(f"{data}:{number}: holds {names} rows, not chats.", hint=hint, field="data")

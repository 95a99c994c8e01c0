"""Validate a job and say what is wrong with it in words that name the file, the line and the key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, cast

from ainfinity.core.exceptions import InvalidSpec
from ainfinity.core.redact import find_secret, redact
from ainfinity.schema.document import Document, Place
from ainfinity.schema.overrides import KNOWN, nearest
from ainfinity.schema.training_job import JobSpec

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_MOST: Final = 10
_SECRET_HINT: Final = "Store it with `ainfinity secrets set NAME`, and list that NAME under `secrets:`."  # noqa: S105  # no password


def validate(document: Document) -> JobSpec:
    """Return the job that `document` describes. Errors: InvalidSpec, with every problem that was found."""
    from pydantic import ValidationError

    try:
        return JobSpec.model_validate(document.data)
    except ValidationError as error:
        first = error
    if _repair(document, first):
        try:
            return JobSpec.model_validate(document.data)
        except ValidationError as error:
            first = error
    raise _refusal(document, first) from None


def problem(document: Document, place: Place, message: str) -> str:
    """Return `message` with the place it concerns before it: `job.yaml:7: recipe.lr: must be greater than 0`."""
    origin = document.origin(place)
    key = ".".join(map(str, place))
    return ": ".join(part for part in (origin.where if origin else "", redact(key), redact(message)) if part)


def refuse_secrets(document: Document) -> None:
    """Refuse a job that holds the value of a secret, without repeating it. Errors: InvalidSpec."""
    for place, text in _texts(document.data, ()):
        if kind := find_secret(text):
            message = problem(document, place, f"this is {kind}, and a job holds only the names of secrets")
            raise InvalidSpec(f"{message}.", hint=_SECRET_HINT, field=redact(".".join(map(str, place))))


def _texts(value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, item in cast("dict[str, Any]", value).items():
            yield (*place, key), key
            yield from _texts(item, (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(cast("list[Any]", value)):
            yield from _texts(item, (*place, index))


def _refusal(document: Document, error: ValidationError) -> InvalidSpec:
    lines: list[str] = []
    first_key = ""
    for details in error.errors(include_url=False, include_context=False):
        place, message = _describe(document, details)
        first_key = first_key or ".".join(map(str, place))
        line = problem(document, place, message)
        if line not in lines:
            lines.append(line)
    if len(lines) > _MOST:
        lines[_MOST:] = [f"and {len(lines) - _MOST} more"]
    return InvalidSpec("\n".join(lines), field=redact(first_key))


def _place(data: Any, details: ErrorDetails) -> Place:
    """Return the error's location without the names of union members and validators that pydantic mixes in."""
    place: list[str | int] = []
    location = details["loc"]
    for index, part in enumerate(location):
        known = (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int))
        last = index == len(location) - 1
        if known:
            data = cast("Any", data)[part]
            place.append(part)
        elif last and details["type"].startswith("missing"):
            place.append(part)
    return tuple(place)


def _describe(document: Document, details: ErrorDetails) -> tuple[Place, str]:
    place = _place(document.data, details)
    message = details["msg"]
    match details["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            return place, _unknown(place)
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return place, _missing(place)
        case "value_error":
            return _from_message(place, message.removeprefix("Value error, "))
        case "string_pattern_mismatch":
            return place, _mismatch(place)
        case "dataclass_type" | "dict_type" | "model_type":
            return place, "must hold settings of its own, as `key: value` lines"
        case "string_type":
            return place, "must be text"
        case _:
            for begin in ("Input should be ", "Value should be ", "String should have ", "Tuple should have "):
                if message.startswith(begin):
                    return place, f"must {'be' if 'be' in begin.split() else 'have'} {message.removeprefix(begin)}"
            return place, message


def _unknown(place: Place) -> str:
    name = str(place[-1])
    part = ".".join(map(str, place[:-1]))
    if guess := nearest(name, KNOWN.get(part, ())):
        return f"unknown key; did you mean {guess}?"
    homes = [home for home, names in KNOWN.items() if name in names and home != part]
    if homes:
        return f"unknown key here; it belongs {'under ' + homes[0] + ':' if homes[0] else 'at the top of the file'}"
    return f"unknown key; known here: {', '.join(KNOWN.get(part, ()))}"


def _missing(place: Place) -> str:
    name = place[-1] if place else ""
    example = {"name": "my-job", "data": "rows.jsonl", "model": "path-or-hub-name"}.get(str(name))
    return f"is missing; set it in the file, or as {name}={example}" if example else "is missing"


def _mismatch(place: Place) -> str:
    from ainfinity.schema.training_job import Policy, Resources

    models = {"resources": Resources, "policy": Policy}
    model = models.get(str(place[0])) if len(place) == 2 else None
    described = model.model_fields[str(place[1])].description if model else ""
    return f"is not of the right form. {described}".strip() if described else "holds characters that are not allowed"


def _from_message(place: Place, message: str) -> tuple[Place, str]:
    """A check over several settings begins its message with the one to change: `resources.nodes: this machine …`."""
    key, separator, rest = message.partition(": ")
    if separator and "." in key and " " not in key:
        return tuple(key.split(".")), rest
    if place == ("recipe",) and (word := message.split()[0].rstrip(",;:")) in KNOWN["recipe"]:
        return ("recipe", word), message
    return place, message


def _repair(document: Document, error: ValidationError) -> bool:
    """Take scalars for what they must be: `name: 123` is text, `tags: a` is a list of one. Tell if anything changed."""
    changed = False
    for details in error.errors(include_url=False, include_context=False):
        place = _place(document.data, details)
        if not place:
            continue
        parent: Any = document.data
        for part in place[:-1]:
            parent = parent[part]
        origin = document.origins.get(place)
        value = parent[place[-1]] if details["type"] in ("string_type", "tuple_type") else None
        if details["type"] == "string_type" and isinstance(value, (int, float)) and origin and origin.raw is not None:
            parent[place[-1]] = origin.raw
            changed = True
        elif details["type"] == "tuple_type" and isinstance(value, str):
            words = value.split(",") if place[0] in ("tags", "secrets") else [value]
            parent[place[-1]] = [word.strip() for word in words]
            changed = True
    return changed

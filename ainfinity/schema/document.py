"""Small YAML and JSON files that people write, read strictly and with the line of every key.

The scalars follow YAML 1.2's core schema instead of PyYAML's 1.1: `1e-4` is a number, `no` and `on` are text, `012` is
twelve. Duplicate keys, tags and aliases are refused; so is whatever is too large to have been written by hand.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ainfinity.core.exceptions import InvalidFile, NotFound

if TYPE_CHECKING:
    from yaml.events import Event

#: Bytes of a file; a job file takes a few hundred.
MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 32

_INT: Final = re.compile(r"[-+]?[0-9][0-9_]{0,30}")
_FLOAT: Final = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4})?")
_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}

#: The path of a value from the root: keys, and positions in lists.
Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written, the folder that its relative paths start from, and a scalar's text as written.

    `plain` tells that the scalar stood there without quotes.
    """

    where: str
    folder: Path
    raw: str | None = None
    plain: bool = False


@dataclass(slots=True)
class Document:
    """A mapping as plain values, and the origin of each of its keys and items."""

    data: dict[str, Any] = field(default_factory=dict[str, Any])
    origins: dict[Place, Origin] = field(default_factory=dict[Place, Origin])

    def origin(self, place: Place) -> Origin | None:
        """Return the origin of the nearest value at or above `place` that has one."""
        for length in range(len(place), -1, -1):
            if found := self.origins.get(place[:length]):
                return found
        return None


def parse_scalar(text: str) -> str | int | float | bool | None:
    """Return what an unquoted scalar means. Numbers that are not finite stay text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and not text.endswith("_"):
        return int(text.replace("_", ""))
    if _FLOAT.fullmatch(text) and not text.endswith("_") and math.isfinite(number := float(text.replace("_", ""))):
        return number
    return text


def read_document(path: Path, *, label: str = "") -> Document:
    """Read a YAML or JSON file (by its suffix) whose root is a mapping.

    Errors:
        NotFound: there is no such file.
        InvalidFile: it cannot be read, or is not what it should be; the message names the line.
    """
    label = label or path.name
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(
            f"There is no file {path}.", hint="Check the path; it is taken from the current folder."
        ) from None
    except IsADirectoryError:
        raise InvalidFile(f"{path} is a folder, not a file.", hint="Name the job file in it.") from None
    except OSError as error:
        raise InvalidFile(f"{path} cannot be read: {error.strerror or error}.", hint="Check its permissions.") from None
    return parse_document(content, label=label, folder=path.absolute().parent, as_json=path.suffix.lower() == ".json")


def parse_document(content: bytes, *, label: str, folder: Path, as_json: bool = False) -> Document:
    """Read YAML or JSON text; `label` names it in messages. Errors: InvalidFile."""
    if len(content) > MAX_BYTES:
        raise InvalidFile(
            f"{label} is larger than {MAX_BYTES // 1024} KiB.", hint="Is it the data and not the job file?"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InvalidFile(f"{label}:{line}: is not UTF-8 text.", hint="Save it as UTF-8.") from None
    reader = _Reader(label, folder)
    if as_json:
        return reader.read_json(text)
    return reader.read_yaml(text)


def parse_value(text: str) -> Any:
    """Return what the right side of a `key=value` means: a scalar, or YAML if it begins like a list, mapping or string.

    Everything else is taken as it stands, so that `note=a: b #1` needs no quotes beyond the shell's.
    Errors: InvalidFile.
    """
    if text[:1] not in ("[", "{", '"', "'"):
        return parse_scalar(text)
    document = _Reader("command line", Path()).read_yaml(f"value: {text}")
    if set(document.data) != {"value"}:
        raise InvalidFile("command line: holds more than one value.", hint="Put the value in quotes.")
    return document.data["value"]


class _Reader:
    """Turns the text of one file into a Document."""

    def __init__(self, label: str, folder: Path) -> None:
        self._label = label
        self._folder = folder
        self._origins: dict[Place, Origin] = {}

    def read_yaml(self, text: str) -> Document:
        from yaml.events import DocumentStartEvent, StreamEndEvent, StreamStartEvent

        events = self._events(text)
        first = next(event for event in events if not isinstance(event, (StreamStartEvent, DocumentStartEvent)))
        if isinstance(first, StreamEndEvent):
            raise InvalidFile(f"{self._label} is empty.", hint="`ainfinity new` writes a job file to begin with.")
        data = self._value(first, events, ())
        next(events)  # the end of the document
        if not isinstance(rest := next(events), StreamEndEvent):
            raise self._fail(rest, "a second document begins here; a job file holds one.", "Split the file.")
        if not isinstance(data, dict):
            raise InvalidFile(f"{self._label}:1: must hold `key: value` lines.")
        return Document(data, self._origins)  # pyright: ignore[reportUnknownArgumentType]

    def read_json(self, text: str) -> Document:
        try:
            data = json.loads(text, object_pairs_hook=self._pairs, parse_constant=self._no_constant)
        except json.JSONDecodeError as error:
            raise InvalidFile(f"{self._label}:{error.lineno}: is not JSON: {error.msg}.") from None
        except (RecursionError, ValueError) as error:  # the latter from int() above 4,300 digits
            reason = "is nested too deeply" if isinstance(error, RecursionError) else "holds a number that is too long"
            raise InvalidFile(f"{self._label}: {reason}.") from None
        if not isinstance(data, dict):
            raise InvalidFile(f"{self._label}:1: must hold a JSON object.")
        try:  # only for the lines: nearly all JSON is YAML
            self.read_yaml(text)
        except InvalidFile:
            self._origins = {(): Origin(self._label, self._folder)}
        return Document(data, self._origins)  # pyright: ignore[reportUnknownArgumentType]

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise InvalidFile(f"{self._label}: the key {key} stands there twice.", hint="Remove one of them.")
            result[key] = value
        return result

    def _no_constant(self, name: str) -> Any:
        raise InvalidFile(f"{self._label}: {name} is not a number that a job can use.")

    def _events(self, text: str) -> Iterator[Event]:
        """Yield the parser's events. PyYAML's composer is not used: deep nesting overflows its C stack."""
        import yaml

        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            yield from yaml.parse(text, Loader=loader)
        except yaml.YAMLError as error:
            raise self._yaml_error(error) from None

    def _yaml_error(self, error: Any) -> InvalidFile:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        problem = str(getattr(error, "problem", "") or "").strip() or "it holds a character that YAML does not allow"
        line = f":{mark.line + 1}" if mark else ""
        hint = "Indent with spaces, and put text with ': ' or ' #' in quotes."
        return InvalidFile(f"{self._label}{line}: is not valid YAML: {problem}.", hint=hint)

    def _where(self, event: Event) -> str:
        return f"{self._label}:{event.start_mark.line + 1}" if event.start_mark else self._label

    def _fail(self, event: Event, message: str, hint: str = "") -> InvalidFile:
        return InvalidFile(f"{self._where(event)}: {message}", hint=hint)

    def _value(self, event: Event, events: Iterator[Event], place: Place) -> Any:
        """Return the value that begins with `event`, taking what belongs to it from `events`."""
        from yaml.events import AliasEvent, MappingStartEvent, ScalarEvent, SequenceEndEvent, SequenceStartEvent

        if len(place) > MAX_DEPTH:
            raise self._fail(event, "is nested too deeply.")
        if isinstance(event, AliasEvent):
            raise self._fail(event, "aliases (*name) are not supported.", "Write the value out.")
        if getattr(event, "tag", None):
            raise self._fail(event, "tags (!name) are not supported.", "Remove the tag.")
        raw = event.value if isinstance(event, ScalarEvent) else None
        # A key's line, where there is one, is that of the key, even if its value begins on a later one.
        known = self._origins.get(place)
        where = known.where if known else self._where(event)
        plain = isinstance(event, ScalarEvent) and event.implicit[0]
        self._origins[place] = Origin(where, self._folder, raw, plain)
        if isinstance(event, ScalarEvent):
            return parse_scalar(event.value) if event.implicit[0] else event.value
        if isinstance(event, SequenceStartEvent):
            items = iter(lambda: next(events), None)
            ended = itertools.takewhile(lambda item: not isinstance(item, SequenceEndEvent), items)
            return [self._value(item, events, (*place, index)) for index, item in enumerate(ended)]
        if isinstance(event, MappingStartEvent):
            return self._mapping(events, place)
        raise self._fail(event, "is not a value.")

    def _mapping(self, events: Iterator[Event], place: Place) -> dict[str, Any]:
        from yaml.events import MappingEndEvent, ScalarEvent

        result: dict[str, Any] = {}
        while not isinstance(event := next(events), MappingEndEvent):
            if not isinstance(event, ScalarEvent):
                raise self._fail(event, "a key must be a word.")
            key = event.value
            if key in result:
                raise self._fail(event, f"the key {key} stands there twice.", "Remove one of them.")
            where = self._where(event)
            self._origins[(*place, key)] = Origin(where, self._folder)
            result[key] = self._value(next(events), events, (*place, key))
        return result

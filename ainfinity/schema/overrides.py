"""`key=value` texts that change a job from the command line.

A key is a dotted path from the job's root (`recipe.lora.r`), or what is left of it once `recipe`, `resources` or
`policy` is taken off (`lora.r`, `lr`, `gpus`, `retries`): no two of these share a name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, cast

from ainfinity.core.exceptions import InvalidFile, UsageError
from ainfinity.core.redact import redact
from ainfinity.schema.document import Document, Origin, parse_value
from ainfinity.schema.training_job import JobSpec, Policy, Resources
from training.recipe import Lora, Recipe

#: The settings that each part of a job has, by the part's dotted place; "" is the root.
KNOWN: Final[dict[str, tuple[str, ...]]] = {
    "": tuple(name for name in JobSpec.model_fields if name != "recipe_name"),
    "recipe": tuple(field.name for field in fields(Recipe)),
    "recipe.lora": tuple(field.name for field in fields(Lora)),
    "resources": tuple(Resources.model_fields),
    "policy": tuple(Policy.model_fields),
}
_PARTS: Final = ("recipe", "resources", "policy")
COMMAND_LINE: Final = "command line"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that is most like `word`, or "" when none is."""
    found = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.55)
    return found[0] if found else ""


def full_place(key: str) -> tuple[str, ...]:
    """Return the path from the root that a full or short dotted key means. Errors: UsageError."""
    place = tuple(key.split("."))
    if not all(place):
        raise UsageError(f"{redact(key)!r} is not a key.", hint="Write key=value, for example lr=1e-4 or lora.r=8.")
    first = place[0]
    if first in KNOWN[""] or first == "recipe_name":
        return place
    parts = [part for part in _PARTS if first in KNOWN[part]]
    if len(parts) == 1:
        return (parts[0], *place)
    known = [*KNOWN[""], *(name for part in _PARTS for name in KNOWN[part])]
    guess = nearest(first, known)
    hint = f"Did you mean {guess}?" if guess else "`ainfinity new` writes a job file that explains the settings."
    raise UsageError(f"There is no setting {redact(first)!r}.", hint=hint, field=redact(key))


def apply_overrides(document: Document, texts: Iterable[str], folder: Path) -> None:
    """Change `document`, whose root is a job, by `key=value` texts; their relative paths start from `folder`.

    An empty value takes the key out, so that its default holds again; `null` sets it to nothing.
    Errors: UsageError.
    """
    for text in texts:
        key, separator, raw = text.partition("=")
        if not separator or not key:
            raise UsageError(
                f"{redact(text)!r} is not key=value.", hint="For example lr=1e-4, lora.r=8 or name=my-job."
            )
        place = full_place(key.strip())
        try:
            value = parse_value(raw)
        except InvalidFile as error:
            raise UsageError(f"{key}: {redact(error.message)}", hint="Put the whole of key=value in quotes.") from None
        _set(document, place, value, remove=not raw)
        for old in [old for old in document.origins if old[: len(place)] == place]:
            del document.origins[old]
        document.origins[place] = Origin(COMMAND_LINE, folder, raw)


def _set(document: Document, place: tuple[str, ...], value: Any, *, remove: bool) -> None:
    inner = document.data
    for depth, part in enumerate(place[:-1], start=1):
        below = inner.get(part)
        if below is None:
            if remove:
                return
            below = inner[part] = {}
        elif part == "recipe" and isinstance(below, str):  # the name of a ready recipe, which is changed here
            below = inner[part] = {"use": below}
        if not isinstance(below, dict):
            name = ".".join(place[:depth])
            raise UsageError(
                f"{redact(name)} holds no settings of its own.", hint=f"Set it as a whole: {redact(name)}=…"
            )
        inner = cast("dict[str, Any]", below)
    if remove:
        inner.pop(place[-1], None)
    else:
        inner[place[-1]] = value

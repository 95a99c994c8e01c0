"""A first job file, with a comment on every setting. The comments are the schema's own descriptions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, Final

from ainfinity.schema.document import parse_scalar
from ainfinity.schema.training_job import Policy, Resources
from training.recipe import Lora, Recipe

if TYPE_CHECKING:
    from pydantic import BaseModel

#: Text that YAML reads back as itself without quotes.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./~][A-Za-z0-9_./~+-]*")
_COMMENT_COLUMN: Final = 36


def scalar(value: Any) -> str:
    """Return a value as a job file holds it; text is quoted where it could be read as something else."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and parse_scalar(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def job_text(name: str, recipe: Mapping[str, Any], about: str) -> str:
    """Return the text of a job file: what is in `recipe` set, every other setting shown as a comment.

    `about` heads the file, line by line. A value for `lora` is a mapping of its settings.
    """
    lines = [*(f"# {line}" for line in about.splitlines()), "", f"name: {scalar(name)}", "", "recipe:"]
    lines += _recipe_lines(recipe)
    lines += ["", "# Where it may run.", "# resources:", *_model_lines(Resources)]
    lines += ["", "# What may be done for it, and when a person is asked.", "# policy:", *_model_lines(Policy)]
    lines += [
        "",
        "# tags: [first-try]",
        "# note: For people.",
        "# Names of secrets that the trainer gets as environment variables; `ainfinity secrets set NAME` stores one.",
        "# secrets: [HF_TOKEN]",
    ]
    return "\n".join(lines) + "\n"


def _recipe_lines(recipe: Mapping[str, Any]) -> Iterator[str]:
    rest: list[str] = []
    for field in fields(Recipe):
        about = str(field.metadata.get("description", ""))
        if field.name == "lora" and recipe.get("lora"):
            yield _commented("  lora:", "delete these lines to train all weights")
            known = {inner.name: str(inner.metadata.get("description", "")) for inner in fields(Lora)}
            for key, value in recipe["lora"].items():
                yield _commented(f"    {key}: {scalar(value)}", known[key])
        elif field.name in recipe:
            yield _commented(f"  {field.name}: {scalar(recipe[field.name])}", about)
        elif field.default is not MISSING:
            rest.append(_commented(f"  # {field.name}: {scalar(field.default)}", about))
    yield "  # More settings, with their defaults:"
    yield from rest


def _model_lines(model: type[BaseModel]) -> Iterator[str]:
    for key, field in model.model_fields.items():
        yield _commented(f"#   {key}: {scalar(field.default)}", field.description or "")


def _commented(text: str, about: str) -> str:
    about = about.replace("\n", " ")
    return f"{text:<{_COMMENT_COLUMN}} # {about}" if about else text

"""Job files: what a person writes, turned into a `JobSpec`.

A job file holds `name`, `recipe:` (inline, the name of a ready one, or `{use: NAME, lr: …}`), `resources:`, `policy:`,
`tags`, `note` and `secrets`. A recipe file holds a recipe alone, with suggested resources under `plan_for:`, and can be
launched by itself. Every relative path is taken from the folder of the file that names it, or from the current folder
if the command line does.

In place of a recipe a job file may hold a SkyPilot task under `sky:`, and a SkyPilot task can be launched by itself.
"""

from __future__ import annotations

import importlib.resources
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from ainfinity.core.exceptions import InvalidFile, InvalidSpec, NotFound
from ainfinity.core.redact import redact
from ainfinity.schema.data import is_dataset_ref
from ainfinity.schema.document import MAX_BYTES, Document, Origin, Place, parse_document, read_document
from ainfinity.schema.overrides import KNOWN, apply_overrides, nearest
from ainfinity.schema.problems import problem, refuse_secrets, validate
from ainfinity.schema.sky_file import read_task
from ainfinity.schema.sky_task import is_task
from ainfinity.schema.training_job import JobSpec

SUFFIXES: Final = (".yaml", ".yml", ".json")
_PATHS: Final = ("model", "data", "eval_data")
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class ReadyRecipe:
    """A recipe that comes with ainfinity: what it is for, its file as written, and the file's two parts."""

    name: str
    summary: str
    text: str
    recipe: Mapping[str, Any]
    plan_for: Mapping[str, Any]


def load(target: str, overrides: Iterable[str] = ()) -> JobSpec:
    """Return the job that `target` names: a job or recipe file, `-` for standard input, or a ready recipe.

    Errors:
        NotFound: there is no such file or recipe.
        InvalidFile, InvalidSpec: it cannot be used; the message names file, line and key.
        UsageError: an override is not well formed.
    """
    path = Path(target).expanduser()
    if target == "-":
        content = sys.stdin.buffer.read(MAX_BYTES + 1)
        return _build(parse_document(content, label="standard input", folder=Path.cwd()), "", overrides)
    if path.suffix.lower() in SUFFIXES or "/" in target or path.is_file():
        return load_job_file(path, overrides)
    return _build(_read_recipe(target), target, overrides, ready=target)


def load_job_file(path: Path | str, overrides: Iterable[str] = ()) -> JobSpec:
    """Return the job in a job or recipe file, changed by `key=value` overrides. Errors: as `load`."""
    path = Path(path)
    return _build(read_document(path, label=str(path)), path.stem, overrides)


def load_recipe(name: str) -> ReadyRecipe:
    """Return the ready recipe of that name. Errors: NotFound."""
    document = _read_recipe(name)
    text = _recipe_files()[name].read_text(encoding="utf-8")
    about = re.match(r"(?:#[^\n]*[^\s#][^\n]*\n)+", text)  # the first paragraph of the leading comment
    summary = " ".join(line.lstrip("# ").strip() for line in about[0].splitlines()) if about else ""
    plan_for: dict[str, Any] = document.data.pop("plan_for", None) or {}
    return ReadyRecipe(name, summary.strip(), text, document.data, plan_for)


def recipe_names() -> list[str]:
    """Return the names of all ready recipes, sorted."""
    return sorted(_recipe_files())


def change_spec(spec: Mapping[str, Any], overrides: Iterable[str]) -> JobSpec:
    """Return a stored spec (`JobSpec.as_json()`) with overrides applied. Errors: UsageError, InvalidSpec."""
    document = Document(cast("dict[str, Any]", _copy(spec)), {(): Origin("", Path.cwd())})
    return _finish(document, overrides)


def _recipe_files() -> dict[str, Any]:
    try:
        folder = importlib.resources.files("recipes")
    except ModuleNotFoundError:
        return {}
    return {entry.name.removesuffix(".yaml"): entry for entry in folder.iterdir() if entry.name.endswith(".yaml")}


def _read_recipe(name: str) -> Document:
    files = _recipe_files()
    if name not in files:
        guess = nearest(name, files)
        hint = f"Did you mean {guess}?" if guess else "`ainfinity recipes` lists them; a file is named with its suffix."
        raise NotFound(f"There is no ready recipe {redact(name)!r}, and no such file.", hint=hint)
    with importlib.resources.as_file(files[name]) as path:
        document = read_document(path, label=f"recipe {name}")
    # No data comes with a ready recipe: a relative path in it only shows what kind of file is meant.
    for key in ("data", "eval_data"):
        if not os.path.isabs(str(document.data.get(key, "/"))):
            del document.data[key], document.origins[(key,)]
    return document


def _build(document: Document, stem: str, overrides: Iterable[str], *, ready: str = "") -> JobSpec:
    task = is_task(document.data)
    if task or not set(document.data) & set(KNOWN[""]):
        if task:
            stem = str(document.data.get("name") or stem)
            document = _under("sky", document)
        else:
            document = _as_job(document)
        slug = re.sub(r"[^a-z0-9]+", "-", stem.lower())[:64].strip("-")
        if slug:
            document.data["name"] = slug
        if ready:
            document.data["recipe_name"] = ready
    return _finish(document, overrides)


def _under(key: str, content: Document) -> Document:
    """Return a job that holds a file's whole content under one key."""
    origins: dict[Place, Origin] = {(key, *place): origin for place, origin in content.origins.items()}
    return Document({key: dict(content.data)}, {**origins, (): content.origins[()]})


def _as_job(recipe: Document) -> Document:
    """Return a recipe file's content as a job: `plan_for` becomes `resources`, all else is the recipe."""
    job = _under("recipe", recipe)
    plan_for = job.data["recipe"].pop("plan_for", None)
    if plan_for is not None:
        job.data["resources"] = plan_for
    for place in [place for place in job.origins if place[:2] == ("recipe", "plan_for")]:
        job.origins["resources", *place[2:]] = job.origins.pop(place)
    return job


def _finish(document: Document, overrides: Iterable[str]) -> JobSpec:
    apply_overrides(document, overrides, Path.cwd())
    refuse_secrets(document)
    if isinstance(document.data.get("sky"), dict):
        read_task(document)
        return validate(document)
    recipe: Any = document.data.get("recipe")
    if isinstance(recipe, str):
        recipe = document.data["recipe"] = {"use": recipe}
    if isinstance(recipe, dict) and "use" in recipe:
        document = _use(document, cast("dict[str, Any]", recipe))
    _resolve_paths(document)
    return validate(document)


def _use(document: Document, recipe: dict[str, Any]) -> Document:
    """Lay the job over the ready recipe that it names."""
    name = recipe.pop("use")
    if not isinstance(name, str):
        raise InvalidFile(problem(document, ("recipe", "use"), "must be the name of a ready recipe"))
    try:
        base = _as_job(_read_recipe(name))
    except NotFound as error:
        raise InvalidSpec(problem(document, ("recipe",), error.message), hint=error.hint, field="recipe") from None
    base.data["recipe_name"] = name
    return Document(_merge(base.data, document.data), {**base.origins, **document.origins})


def _merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        both = isinstance(value, dict) and isinstance(below, dict)
        merged[key] = _merge(cast("dict[str, Any]", below), cast("dict[str, Any]", value)) if both else value
    return merged


def _resolve_paths(document: Document) -> None:
    """Make the recipe's paths absolute, and refuse those that lead nowhere. Errors: InvalidSpec."""
    recipe: Any = document.data.get("recipe")
    if not isinstance(recipe, dict):
        return
    recipe = cast("dict[str, Any]", recipe)
    for key in _PATHS:
        text = recipe.get(key)
        if isinstance(text, str) and text:
            origin = document.origin(("recipe", key))
            path = os.path.normpath((origin.folder if origin else Path.cwd()) / os.path.expanduser(text))
            looks_like_path = text.startswith((".", "~", "/")) or _URL.match(text)
            if key == "model" and not looks_like_path and not os.path.isdir(path):
                continue  # a name on the hub
            if key != "model" and is_dataset_ref(text) and not os.path.exists(path):
                continue  # a data set that is kept, or not: the service knows
            if fault := _path_fault(key, text, path):
                raise InvalidSpec(problem(document, ("recipe", key), fault), field=f"recipe.{key}")
            recipe[key] = path


def _path_fault(key: str, text: str, path: str) -> str:
    if _URL.match(text):
        return "is a URL; download it and give the path"
    if key == "model":
        return "" if os.path.isdir(path) else f"there is no folder {path}"
    if os.path.isdir(path):
        return f"{path} is a folder; name a JSONL file in it"
    if not os.path.exists(path):
        return f"there is no file {path}"
    return "" if os.path.isfile(path) else f"{path} is not a regular file; save its content as one"


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_copy(item) for item in cast("list[Any]", value)]
    return value

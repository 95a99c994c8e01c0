"""What to train: model, data, method and hyperparameters. No machine in it.

The dataclasses here are the one schema of a recipe. Pydantic validates them wherever they are embedded; built directly
they check combinations (`__post_init__`) but no ranges, so anything read from outside goes through `parse_recipe`.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

_STRICT_KEYS: dict[str, Any] = {"extra": "forbid", "allow_inf_nan": False}


class RecipeError(ValueError):
    """A recipe that cannot be run as written.

    `problems` holds a (dotted key, message) pair for each fault; the key is empty if it lies between settings.
    """

    def __init__(self, problems: Iterable[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{key}: {message}" if key else message for key, message in self.problems))


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Train small low-rank matrices beside frozen weights instead of the weights themselves."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT_KEYS

    r: int = field(default=8, metadata={"description": "rank of the added matrices", "ge": 1})
    alpha: float = field(
        default=16.0, metadata={"description": "scale: the update is multiplied by alpha / r", "gt": 0}
    )
    dropout: float = field(default=0.0, metadata={"description": "dropout before the added matrices", "ge": 0, "lt": 1})
    targets: Literal["all-linear"] | tuple[str, ...] = field(
        default="all-linear", metadata={"description": "all-linear, or the names of the modules to adapt"}
    )

    def __post_init__(self) -> None:
        if not self.targets:
            raise ValueError("lora.targets names no module; use all-linear or name at least one")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One fine-tuning run, complete except for the machine. Flat, so that overrides stay short: `lora.r=8`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT_KEYS

    model: str = field(metadata={"description": "folder with the model, or its name on the hub", "min_length": 1})
    data: str = field(
        metadata={
            "description": 'chat JSONL file, one {"messages": [{"role": ..., "content": ...}]} a line',
            "min_length": 1,
        }
    )
    eval_data: str | None = field(default=None, metadata={"description": "held-out chat JSONL file", "min_length": 1})
    eval_rows: int = field(default=0, metadata={"description": "without eval_data: rows of data to hold out", "ge": 0})
    method: Literal["sft"] = field(default="sft", metadata={"description": "sft: supervised fine-tuning"})
    train_on: Literal["assistant", "last", "all"] = field(
        default="assistant",
        metadata={"description": "which tokens are trained: every assistant turn, only the last one, or all tokens"},
    )
    lora: Lora | None = field(
        default=None, metadata={"description": "LoRA settings; without them all weights are trained"}
    )

    max_length: int = field(default=2048, metadata={"description": "longest row, in tokens", "ge": 8})
    over_length: Literal["drop", "truncate", "error"] = field(
        default="truncate", metadata={"description": "what happens to rows longer than max_length"}
    )

    epochs: float = field(default=1.0, metadata={"description": "passes over data, unless max_steps is set", "gt": 0})
    max_steps: int | None = field(default=None, metadata={"description": "optimizer steps; wins over epochs", "ge": 1})
    micro_batch_size: int = field(
        default=1, metadata={"description": "rows in one forward pass of one process", "ge": 1}
    )
    accumulation: int = field(
        default=1, metadata={"description": "forward passes of each process in one step", "ge": 1}
    )

    lr: float = field(default=1e-4, metadata={"description": "highest learning rate", "ge": 0})
    schedule: Literal["cosine", "linear", "constant"] = field(
        default="cosine", metadata={"description": "how the learning rate falls to zero after the warm-up"}
    )
    warmup_steps: int = field(default=0, metadata={"description": "steps in which the learning rate rises", "ge": 0})
    warmup_ratio: float = field(
        default=0.0, metadata={"description": "the same as a share of all steps; set one of the two", "ge": 0, "lt": 1}
    )
    weight_decay: float = field(default=0.0, metadata={"description": "AdamW's decoupled weight decay", "ge": 0})
    max_grad_norm: float = field(default=1.0, metadata={"description": "gradients are clipped to this norm", "gt": 0})
    seed: int = field(default=0, metadata={"description": "decides data order, held-out rows and dropout", "ge": 0})

    precision: Literal["bf16", "fp32"] = field(default="bf16", metadata={"description": "number format of the weights"})
    zero_stage: Literal[0, 1, 2, 3] = field(
        default=2,
        metadata={"description": "DeepSpeed ZeRO: what is sharded. 0 nothing, 1 optimizer, 2 + gradients, 3 + weights"},
    )
    gradient_checkpointing: bool = field(
        default=False, metadata={"description": "recompute activations: less memory, about a third more time"}
    )

    log_every: int = field(default=1, metadata={"description": "report every so many steps", "ge": 1})
    eval_every: int = field(
        default=0, metadata={"description": "also evaluate every so many steps; 0: only before and after", "ge": 0}
    )
    save_every: int = field(
        default=0,
        metadata={"description": "also save every so many steps; 0: only at the end and when stopped", "ge": 0},
    )
    keep_last: int = field(default=2, metadata={"description": "checkpoints to keep", "ge": 1})
    sample_prompts: tuple[str, ...] = field(
        default=(), metadata={"description": "questions that the model answers before and after training"}
    )
    sample_tokens: int = field(default=48, metadata={"description": "longest sample answer, in tokens", "ge": 1})

    def __post_init__(self) -> None:
        if self.eval_data is not None and self.eval_rows:
            raise ValueError("eval_data and eval_rows are both set; keep one of them")
        if self.eval_every and not (self.eval_data or self.eval_rows):
            raise ValueError("eval_every needs held-out data; set eval_data or eval_rows")
        if self.warmup_steps and self.warmup_ratio:
            raise ValueError("warmup_steps and warmup_ratio are both set; keep one of them")
        if self.max_steps is not None and self.warmup_steps > self.max_steps:
            raise ValueError("warmup_steps is larger than max_steps; lower warmup_steps")
        if self.precision == "bf16" and self.zero_stage == 0:
            raise ValueError(
                "precision bf16 drifts without sharded fp32 master weights; set zero_stage: 1, or precision: fp32"
            )


def parse_recipe(mapping: Mapping[str, Any]) -> Recipe:
    """The recipe that a decoded YAML or JSON mapping describes. Raises RecipeError with dotted keys."""
    from pydantic import ValidationError

    try:
        return _adapter().validate_python(dict(mapping))
    except ValidationError as error:
        raise RecipeError(_problem(details) for details in error.errors(include_url=False)) from None


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain JSON types, with every default written out."""
    return cast("dict[str, Any]", _plain(asdict(recipe)))


def apply_overrides(mapping: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of `mapping` with `key=value` or `dotted.key=value` texts applied; values are read as YAML scalars.

    Raises RecipeError for a text without `=`, a bad value, or a dotted key that leads through something not a mapping.
    """
    import yaml

    result = cast("dict[str, Any]", _plain(dict(mapping)))
    for text in overrides:
        key, separator, raw = text.partition("=")
        if not separator or not all(key.split(".")):
            raise RecipeError([(key, f"{text!r} is not an override; write it as key=value, for example lr=1e-4")])
        try:
            value = yaml.safe_load(raw)
        except (yaml.YAMLError, ValueError):
            raise RecipeError([(key, f"{raw!r} is not a YAML value; put it in quotes if it is text")]) from None
        _set_dotted(result, key, value)
    return result


def resolve_paths(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with relative data files, and a model that is a folder there, taken from `folder`."""

    def absolute(path: str) -> str:
        return str((folder / Path(path).expanduser()).resolve())

    model = recipe.model
    if model.startswith((".", "~", "/")) or (folder / model).is_dir():
        model = absolute(model)
    eval_data = None if recipe.eval_data is None else absolute(recipe.eval_data)
    return replace(recipe, model=model, data=absolute(recipe.data), eval_data=eval_data)


@functools.cache
def _adapter() -> TypeAdapter[Recipe]:
    from pydantic import TypeAdapter  # kept out of the module: completion and `--help` import recipes too

    return TypeAdapter(Recipe)


def _problem(details: ErrorDetails) -> tuple[str, str]:
    location = [str(part) for part in details["loc"] if not str(part).startswith(("literal[", "tuple["))]
    key = ".".join(location)
    match details["type"]:
        case "unexpected_keyword_argument" | "extra_forbidden":
            known = [f.name for f in fields(Lora if location[0] == "lora" and len(location) > 1 else Recipe)]
            nearest = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.0)
            return key, f"unknown setting; the nearest known one is {nearest[0]}"
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return key, "this setting is missing and has no default"
        case "value_error":
            return key, details["msg"].removeprefix("Value error, ")
        case _:
            return key, f"{details['msg'][:1].lower()}{details['msg'][1:]} (it is {details['input']!r})"


def _set_dotted(mapping: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    inner = mapping
    for parent in parents:
        if inner.get(parent) is None:
            inner[parent] = {}
        if not isinstance(inner[parent], dict):
            raise RecipeError([(key, f"{parent} is a single value and holds no {last}")])
        inner = inner[parent]
    inner[last] = value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in cast("Iterable[Any]", value)]
    return value

"""Loading the tokenizer and the model, and putting LoRA on it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from training.errors import invalid
from training.recipe import Lora, Recipe

if TYPE_CHECKING:
    from collections.abc import Generator


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with some padding token. Raises TrainingError `model_not_found`."""
    with _explained(name):
        tokenizer = cast("PreTrainedTokenizerBase", AutoTokenizer.from_pretrained(name))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(recipe: Recipe) -> PreTrainedModel:
    """The model in the recipe's precision, ready to be trained. Raises TrainingError `model_not_found`."""
    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    with _explained(recipe.model):
        model = cast("PreTrainedModel", AutoModelForCausalLM.from_pretrained(recipe.model, dtype=dtype))
    model.config.use_cache = False
    if recipe.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if recipe.lora is not None:
            model.enable_input_require_grads()  # frozen embeddings would otherwise cut the recomputed graph off
    return add_lora(model, recipe.lora) if recipe.lora is not None else model


def add_lora(model: PreTrainedModel, lora: Lora) -> PreTrainedModel:
    """The model with everything frozen but its new low-rank matrices."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.r,
        lora_alpha=cast("int", lora.alpha),  # peft only divides it by r
        lora_dropout=lora.dropout,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        task_type="CAUSAL_LM",
    )
    try:
        return cast("PreTrainedModel", get_peft_model(model, config))
    except ValueError as error:
        raise invalid(
            "bad_recipe", f"lora.targets does not fit the model: {error}", "set lora.targets: all-linear"
        ) from None


def count_parameters(model: Any) -> tuple[int, int]:
    """(all, trainable) parameters; those that ZeRO-3 has partitioned count in full."""
    sizes = [(int(getattr(p, "ds_numel", p.numel())), bool(p.requires_grad)) for p in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trainable in sizes if trainable)


@contextmanager
def _explained(name: str) -> Generator[None]:
    transformers.utils.logging.disable_progress_bar()  # its partial lines would tear the protocol's
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise invalid("model_not_found", *_explain(name, str(error))) from None


def _explain(name: str, reason: str) -> tuple[str, str]:
    folder = Path(name)
    if folder.is_dir() and not (folder / "config.json").exists():
        return f"the model folder {name} holds no config.json", "set model to a folder that save_pretrained wrote"
    if folder.is_dir():
        return f"the model in {name} cannot be loaded: {_first_line(reason)}", "check that the folder is complete"
    if folder.is_absolute() or name.startswith((".", "~")):
        return f"the model folder {name} does not exist", "check `model`"
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        return f"the model {name} is not in this machine's cache, and the hub is switched off", "unset HF_HUB_OFFLINE"
    if "gated" in reason or "401" in reason or "403" in reason:
        return f"the hub does not give out the model {name}", "accept its licence there, and set the secret HF_TOKEN"
    return f"the model {name} cannot be loaded: {_first_line(reason)}", "check `model` and the network"


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:300] if text.strip() else "no reason given"

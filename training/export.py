"""The result of a run: an adapter or a model as safetensors, with tokenizer and manifest, checked by reading back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from training.errors import TrainingError
from training.files import MANIFEST, FileEntry, describe_files, replace_folder
from training.recipe import Recipe


def export(
    engine: Any, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, output: Path
) -> tuple[Path, list[FileEntry]]:
    """Write `output`/adapter or `output`/model with all ranks together. Returns the folder and its manifest.

    Raises TrainingError `export_invalid` if what was written is not what was trained; the folder is then not there.
    """
    folder = output / ("model" if recipe.lora is None else "adapter")
    state = _full_state(engine, recipe) if recipe.lora is None else _adapter_state(engine)
    files: list[FileEntry] = []
    if dist.get_rank() == 0:
        writing = folder.with_name(f".{folder.name}.writing")
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir(parents=True)
        options = {} if recipe.lora is None else {"save_embedding_layers": _embeddings(recipe)}
        engine.module.save_pretrained(str(writing), state_dict=state, **options)
        tokenizer.save_pretrained(str(writing))
        _verify(writing, state)
        files = describe_files(writing)
        (writing / MANIFEST).write_text(json.dumps(files, indent=1) + "\n", encoding="utf-8")
        replace_folder(writing, folder)
    dist.barrier()
    return folder, files


def _embeddings(recipe: Recipe) -> bool | str:
    # "auto" asks the hub for the base model; all-linear never adapts embeddings, so there is nothing to ask.
    return False if recipe.lora is not None and recipe.lora.targets == "all-linear" else "auto"


def _full_state(engine: Any, recipe: Recipe) -> dict[str, Tensor]:
    if recipe.zero_stage == 3:
        return engine._zero3_consolidated_16bit_state_dict() or {}  # on all ranks; in the precision of training
    if dist.get_rank() != 0:
        return {}
    # ZeRO keeps the weights as views of one flat buffer, which safetensors takes for tied weights: copy each out once.
    copies: dict[int, Tensor] = {}
    weights = engine.module.state_dict().items()
    return {name: copies.setdefault(w.data_ptr(), w.detach().cpu().clone()) for name, w in weights}


def _adapter_state(engine: Any) -> dict[str, Tensor]:
    """The trained tensors only, gathered one by one from the ranks that hold them."""
    import deepspeed

    state: dict[str, Tensor] = {}
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
                state[name] = parameter.detach().cpu().clone()
    return state


def _verify(folder: Path, expected: Mapping[str, Tensor]) -> None:
    """Read every tensor back: all finite, equal to those in memory, and none missing."""
    in_memory = {name.replace(".default.", "."): tensor for name, tensor in expected.items()}  # peft's adapter name
    elements = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118, it is not a mapping
                tensor: Tensor = file.get_tensor(name)
                elements += tensor.numel()
                if not bool(torch.isfinite(tensor).all()):
                    raise _invalid(f"{path.name}: {name} holds NaN or infinite numbers", "lower lr and train again")
                if name in in_memory and not torch.equal(tensor, in_memory[name]):
                    raise _invalid(f"{path.name}: {name} differs from what was trained", "check the disk")
    wanted = sum({tensor.data_ptr(): tensor.numel() for tensor in expected.values()}.values())  # tied weights once
    if elements == 0 or elements != wanted:
        raise _invalid(f"{elements} of {wanted} trained numbers were written", "check the disk")


def _invalid(message: str, hint: str) -> TrainingError:
    return TrainingError("export_invalid", f"the export is not usable: {message}", hint)

"""The model under DeepSpeed, and the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

from training.batches import IGNORED, Batch
from training.model import count_parameters, load_model
from training.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor


def start_engine(recipe: Recipe, rows_per_step: int) -> Any:
    """The model with a torch AdamW under DeepSpeed. DeepSpeed's own optimizers compile for minutes when first used."""
    import deepspeed
    from transformers.integrations.deepspeed import HfDeepSpeedConfig

    zero: dict[str, Any] = {"stage": recipe.zero_stage, "stage3_gather_16bit_weights_on_model_save": True}
    config: dict[str, Any] = {
        "train_batch_size": rows_per_step,
        "train_micro_batch_size_per_gpu": recipe.micro_batch_size,
        "gradient_accumulation_steps": recipe.accumulation,
        "gradient_clipping": recipe.max_grad_norm,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": recipe.precision == "bf16"},
        "steps_per_print": 2**31,
    }
    # While this object lives, from_pretrained gives each rank only its part of the weights.
    partitioned = HfDeepSpeedConfig(config) if recipe.zero_stage == 3 else None
    model = load_model(recipe)
    del partitioned
    zero["reduce_bucket_size"] = min(500_000_000, max(1_000_000, count_parameters(model)[1]))
    return deepspeed.initialize(model=model, optimizer=_optimizer(model, recipe), config=config)[0]


def _optimizer(model: torch.nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW that decays matrices, and leaves norms and biases alone."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trainable if _dimensions(p) >= 2]
    vectors = [p for p in trainable if _dimensions(p) < 2]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=recipe.lr)


def _dimensions(parameter: Any) -> int:
    return len(getattr(parameter, "ds_shape", parameter.shape))  # ZeRO-3 leaves a flat part in place of the matrix


def summed_loss(engine: Any, batch: Batch) -> Tensor:
    """The cross-entropy summed over the batch's target tokens, in fp32.

    Logits, the largest tensor by far, are made only at positions where some row of the batch has a target.
    """
    labels = batch.labels[:, 1:]
    kept = (labels != IGNORED).any(dim=0).nonzero().squeeze(1)
    output = engine(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False, logits_to_keep=kept
    )
    # A model that does not know logits_to_keep gives them all.
    logits = output.logits if output.logits.shape[1] == len(kept) else output.logits[:, kept]
    labels = labels[:, kept]
    wanted = labels != IGNORED
    return cross_entropy(logits[wanted].float(), labels[wanted], reduction="sum")


def unsharded_gradient_norm(engine: Any) -> float:
    """The norm of all gradients at ZeRO stage 0, where DeepSpeed clips but reports none."""
    gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))

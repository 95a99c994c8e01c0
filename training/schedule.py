"""Learning rate and number of steps, as pure functions of the recipe."""

from __future__ import annotations

import math

from training.recipe import Recipe


def total_steps(recipe: Recipe, step: int, position: int, rows: int, rows_per_step: int) -> int:
    """The step at which a run ends that has taken `position` rows by `step`. The last step may take fewer rows."""
    if recipe.max_steps is not None:
        return recipe.max_steps
    remaining = max(1, round(recipe.epochs * rows)) - position
    return step + max(0, math.ceil(remaining / rows_per_step))


def learning_rate(recipe: Recipe, step: int, last_step: int) -> float:
    """The learning rate of `step`, counted from 1: up to `lr` over the warm-up, then down to almost zero at the end."""
    warmup = recipe.warmup_steps or math.ceil(recipe.warmup_ratio * last_step)
    if step <= warmup:
        return recipe.lr * step / warmup
    passed = (step - warmup - 1) / max(1, last_step - warmup)
    match recipe.schedule:
        case "constant":
            return recipe.lr
        case "linear":
            return recipe.lr * (1 - passed)
        case "cosine":
            return recipe.lr * 0.5 * (1 + math.cos(math.pi * passed))

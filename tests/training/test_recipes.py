from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest
import yaml

from ainfinity.schema.training_job import Resources
from training.recipe import parse_recipe

READY = sorted(entry.name for entry in files("recipes").iterdir() if entry.name.endswith(".yaml"))


def test_there_are_ready_recipes() -> None:
    assert "smollm2-135m-docstrings.yaml" in READY


@pytest.mark.parametrize("name", READY)
def test_a_ready_recipe_is_valid_and_says_what_it_is_for(name: str) -> None:
    text = (files("recipes") / name).read_text(encoding="utf-8")
    assert text.startswith("# ")
    mapping: dict[str, Any] = yaml.safe_load(text)
    Resources.model_validate(mapping.pop("plan_for"))
    parse_recipe(mapping)

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from training.recipe import Lora, Recipe, RecipeError, apply_overrides, parse_recipe, recipe_to_dict, resolve_paths

MINIMAL: dict[str, Any] = {"model": "m", "data": "d.jsonl"}


def problems(mapping: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(mapping)
    return dict(caught.value.problems)


def test_defaults_are_a_valid_recipe() -> None:
    assert parse_recipe(MINIMAL) == Recipe(model="m", data="d.jsonl")


def test_every_field_is_described() -> None:
    for described in (*fields(Recipe), *fields(Lora)):
        assert described.metadata["description"], described.name


@given(
    lr=st.floats(0, 1),
    rank=st.integers(1, 512),
    targets=st.just("all-linear") | st.lists(st.text(min_size=1), min_size=1).map(tuple),
    stage=st.sampled_from([1, 2, 3]),
    prompts=st.lists(st.text()).map(tuple),
    steps=st.none() | st.integers(1, 10**6),
)
def test_dict_and_json_round_trip(
    lr: float, rank: int, targets: Any, stage: Any, prompts: tuple[str, ...], steps: int | None
) -> None:
    lora = Lora(r=rank, targets=targets)
    recipe = Recipe(model="m", data="d", lr=lr, lora=lora, zero_stage=stage, sample_prompts=prompts, max_steps=steps)
    assert parse_recipe(json.loads(json.dumps(recipe_to_dict(recipe)))) == recipe


def test_numbers_that_yaml_reads_as_text_are_numbers() -> None:
    assert parse_recipe({**MINIMAL, "lr": "1e-4"}).lr == 1e-4


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        ({"lr": -1}, "lr", "greater than or equal to 0"),
        ({"lr": float("nan")}, "lr", "finite"),
        ({"lora": {"r": 0}}, "lora.r", "greater than or equal to 1"),
        ({"zero_stage": 4}, "zero_stage", "0, 1, 2 or 3"),
        ({"method": "ppo"}, "method", "sft"),
        ({"max_steps": 0}, "max_steps", "greater than or equal to 1"),
        ({"model": ""}, "model", "at least 1"),
        ({"learning_rate": 1}, "learning_rate", "nearest known one is"),
        ({"lorra": {}}, "lorra", "nearest known one is lora"),
        ({"lora": {"rr": 1}}, "lora.rr", "nearest known one is r"),
    ],
)
def test_bad_values_name_their_key(change: dict[str, Any], key: str, words: str) -> None:
    assert words in problems({**MINIMAL, **change})[key]


def test_missing_settings_are_all_named() -> None:
    assert set(problems({})) == {"model", "data"}


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"precision": "bf16", "zero_stage": 0}, "zero_stage"),
        ({"eval_data": "e.jsonl", "eval_rows": 3}, "eval_rows"),
        ({"eval_every": 5}, "eval_data"),
        ({"warmup_steps": 5, "warmup_ratio": 0.1}, "warmup_ratio"),
        ({"warmup_steps": 5, "max_steps": 2}, "warmup_steps"),
        ({"lora": {"targets": []}}, "lora.targets"),
    ],
)
def test_bad_combinations_name_the_setting_to_change(change: dict[str, Any], setting: str) -> None:
    assert any(setting in message for message in problems({**MINIMAL, **change}).values())


def test_bad_combinations_are_refused_when_built_directly() -> None:
    with pytest.raises(ValueError, match="zero_stage"):
        replace(Recipe(model="m", data="d"), zero_stage=0)


def test_overrides_reach_nested_settings_and_leave_the_input_alone() -> None:
    before: dict[str, Any] = {**MINIMAL, "lora": None}
    after = apply_overrides(
        before, ["lr=1e-3", "lora.r=4", "sample_prompts=[a, b]", "data=x=y.jsonl", "max_steps=null"]
    )
    recipe = parse_recipe(after)
    assert (recipe.lr, recipe.lora, recipe.sample_prompts, recipe.data) == (1e-3, Lora(r=4), ("a", "b"), "x=y.jsonl")
    assert before == {**MINIMAL, "lora": None}


@pytest.mark.parametrize("text", ["lr", "=3", "lora..r=1", "model.name=x", "lr=[", "lr={a: b: c}"])
def test_bad_overrides_are_refused(text: str) -> None:
    with pytest.raises(RecipeError):
        parse_recipe(apply_overrides(MINIMAL, [text]))


@given(st.text(), st.text())
def test_no_override_does_more_than_set_a_value(key: str, value: str) -> None:
    try:
        result = apply_overrides(MINIMAL, [f"{key}={value}"])
    except RecipeError:
        return
    assert set(result) >= set(MINIMAL)


def test_paths_resolve_against_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    recipe = resolve_paths(Recipe(model="tiny", data="d.jsonl", eval_data="/e.jsonl"), tmp_path)
    assert (recipe.model, recipe.data, recipe.eval_data) == (
        str(tmp_path / "tiny"),
        str(tmp_path / "d.jsonl"),
        "/e.jsonl",
    )
    assert resolve_paths(Recipe(model="org/name", data="d"), tmp_path).model == "org/name"


def test_json_schema_carries_ranges_and_descriptions() -> None:
    schema = TypeAdapter(Recipe).json_schema()
    assert schema["properties"]["max_grad_norm"]["exclusiveMinimum"] == 0
    assert "JSONL" in schema["properties"]["data"]["description"]
    assert schema["additionalProperties"] is False


def test_light_modules_load_neither_torch_nor_pydantic() -> None:
    code = "import sys, training.recipe, training.protocol; print({'torch', 'pydantic', 'yaml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

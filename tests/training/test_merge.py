"""A merged model answers as its base with the adapter does, and nothing half-made takes its place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.training.helpers import CPU
from training.errors import TrainingError
from training.files import MANIFEST
from training.merge import merge
from training.model import add_lora, load_tokenizer
from training.recipe import Lora


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter whose every matrix counts, that names a base that is not here, as one from another machine does."""
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(5)
    model = add_lora(AutoModelForCausalLM.from_pretrained(tiny_model), Lora(r=4))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.peft_config["default"].base_model_name_or_path = "/not/here"  # pyright: ignore
    model.save_pretrained(str(folder))
    load_tokenizer(str(tiny_model)).save_pretrained(str(folder))
    return folder


def answer(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.arange(3, 40)[None]).logits


def test_a_merged_model_is_its_base_with_the_adapter(tiny_model: Path, adapter: Path, tmp_path: Path) -> None:
    merge(adapter, str(tiny_model), tmp_path / "merged")
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    plain = answer(base)
    wanted = answer(PeftModel.from_pretrained(base, str(adapter)))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(answer(merged), wanted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(plain, wanted, atol=1e-2)
    assert load_tokenizer(str(tmp_path / "merged")).get_vocab() == load_tokenizer(str(tiny_model)).get_vocab()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged"]


def test_it_is_made_once_and_again_when_it_is_damaged(tiny_model: Path, adapter: Path, tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    merge(adapter, str(tiny_model), merged)
    made = (merged / MANIFEST).stat().st_ino
    merge(adapter, str(tiny_model), merged)
    assert (merged / MANIFEST).stat().st_ino == made
    whole = (merged / "model.safetensors").read_bytes()
    (merged / "model.safetensors").write_bytes(whole[:-1])
    merge(adapter, str(tiny_model), merged)
    assert (merged / "model.safetensors").read_bytes() == whole


def test_a_base_that_is_not_there_is_told_and_leaves_nothing(adapter: Path, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "training.merge", str(adapter), "--model", "/no/base", "--output", str(tmp_path / "m")],
        capture_output=True, text=True, env=os.environ | CPU, timeout=240,
    )  # fmt: skip
    assert ran.returncode == 1
    assert '"model_not_found"' in ran.stdout
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TrainingError):
        merge(tmp_path, "any", tmp_path / "m")

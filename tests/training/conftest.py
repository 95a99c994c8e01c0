from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.helpers import CHATML, ROOT, Server, chat, write_jsonl


@pytest.fixture(scope="session")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("runs"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of about 0.4 million parameters with tied embeddings, and a BPE tokenizer trained on its data."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-model")
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = [path.read_text() for path in sorted((ROOT / "training").glob("*.py"))]
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=4096,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=special[1],
        eos_token=special[2],
        pad_token=special[0],
        unk_token=special[0],
    )
    fast.chat_template = CHATML
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of sums: train.jsonl with 40 rows of different lengths, eval.jsonl with 10 others."""
    folder = tmp_path_factory.mktemp("tiny-data")
    rows = [
        chat(("user", "add " + " and ".join(["one", str(n)] * (1 + n % 4))), ("assistant", f"{n} and more"))
        for n in range(50)
    ]
    write_jsonl(folder / "train.jsonl", rows[:40])
    write_jsonl(folder / "eval.jsonl", rows[40:])
    return folder


@pytest.fixture(scope="session")
def tiny_recipe(tiny_model: Path, tiny_data: Path) -> Callable[..., dict[str, Any]]:
    """A recipe for the tiny model and data; keywords change its settings."""

    def recipe(**changes: Any) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "model": str(tiny_model),
            "data": str(tiny_data / "train.jsonl"),
            "eval_data": str(tiny_data / "eval.jsonl"),
            "precision": "fp32",
            "zero_stage": 2,
            "max_length": 64,
            "max_steps": 6,
            "micro_batch_size": 2,
            "lr": 1e-2,
        }
        return settings | changes

    return recipe

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.training.helpers import CHATML, chat
from training.errors import TrainingError
from training.masking import ChatEncoder

MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}{% endgeneration %}"
    "{% else %}{{ message['content'] }}{% endif %}{{ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WITH_DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}" + CHATML
)
# Like templates of reasoning models: only the last answer keeps its (here empty) thought.
FORGETFUL = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and loop.last %}{{ '<think></think>' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WITHOUT_STOP = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"

TWO_TURNS = chat(
    ("system", "Be brief."), ("user", "Hi there"), ("assistant", "Hello!"), ("user", "Bye"), ("assistant", "See you")
)["messages"]


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def trained_text(
    tokenizer: Any, template: str | None, messages: list[dict[str, Any]], train_on: Any = "assistant"
) -> str:
    """The tokens that are trained, as text, with | at each gap."""
    own = copy.deepcopy(tokenizer)
    own.chat_template = template
    (encoded,) = ChatEncoder(own, train_on).encode([messages])
    assert len(encoded.ids) == len(encoded.trained)
    text = "".join(
        own.decode([token]) if trained else "\0" for token, trained in zip(encoded.ids, encoded.trained, strict=True)
    )
    return "|".join(part for part in text.split("\0") if part)


@pytest.mark.parametrize("template", [CHATML, MARKED, WITH_DEFAULT_SYSTEM])
@pytest.mark.parametrize(
    ("train_on", "expected"),
    [("assistant", "Hello!<|im_end|>|See you<|im_end|>"), ("last", "See you<|im_end|>")],
)
def test_answers_and_their_stop_tokens_are_trained(tokenizer: Any, template: str, train_on: str, expected: str) -> None:
    assert trained_text(tokenizer, template, TWO_TURNS, train_on) == expected


def test_all_trains_all_but_the_first_token(tokenizer: Any) -> None:
    text = trained_text(tokenizer, CHATML, TWO_TURNS[:2], "all")
    assert text == "system\nBe brief.<|im_end|>\n<|im_start|>user\nHi there<|im_end|>\n"


def test_marks_and_rendering_give_the_same_tokens(tokenizer: Any) -> None:
    both: list[Any] = []
    for template in (CHATML, MARKED):
        own = copy.deepcopy(tokenizer)
        own.chat_template = template
        both.append(ChatEncoder(own, "assistant").encode([TWO_TURNS, TWO_TURNS[:3]]))
    assert both[0] == both[1]


def test_an_answer_is_found_though_its_words_occur_before(tokenizer: Any) -> None:
    messages = chat(("user", "Say yes"), ("assistant", "yes"), ("user", "yes"), ("assistant", "user\nyes"))["messages"]
    assert trained_text(tokenizer, CHATML, messages) == "yes<|im_end|>|user\nyes<|im_end|>"


def test_an_answer_that_opens_the_chat_is_trained_without_the_default_system_prompt(tokenizer: Any) -> None:
    messages = chat(("assistant", "Welcome"), ("user", "Hi"))["messages"]
    assert trained_text(tokenizer, WITH_DEFAULT_SYSTEM, messages) == "Welcome<|im_end|>"


def test_a_template_without_stop_token_gets_one_at_the_end(tokenizer: Any) -> None:
    messages = chat(("user", "Hi"), ("assistant", "Hello"))["messages"]
    assert trained_text(tokenizer, WITHOUT_STOP, messages).endswith("Hello\n<|im_end|>")


def test_a_template_that_rewrites_earlier_turns_is_refused_unless_only_the_last_is_trained(tokenizer: Any) -> None:
    with pytest.raises(TrainingError) as caught:
        trained_text(tokenizer, FORGETFUL, TWO_TURNS)
    assert caught.value.code == "template_unmaskable"
    assert "train_on: last" in caught.value.hint
    assert trained_text(tokenizer, FORGETFUL, TWO_TURNS, "last") == "<think></think>See you<|im_end|>"


def test_a_chat_without_answer_trains_nothing(tokenizer: Any) -> None:
    assert trained_text(tokenizer, CHATML, TWO_TURNS[:2]) == ""
    assert trained_text(tokenizer, MARKED, TWO_TURNS[:2]) == ""


def test_a_model_without_chat_template_is_refused(tokenizer: Any) -> None:
    with pytest.raises(TrainingError, match="no chat template"):
        trained_text(tokenizer, None, TWO_TURNS)


def test_a_template_that_refuses_the_chat_is_a_fault_of_the_data(tokenizer: Any) -> None:
    with pytest.raises(TrainingError, match="roles must alternate") as caught:
        trained_text(tokenizer, "{{ raise_exception('roles must alternate') }}", TWO_TURNS)
    assert caught.value.code == "data_invalid"

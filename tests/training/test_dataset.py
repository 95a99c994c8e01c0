from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from tests.training.helpers import chat, write_jsonl
from training.dataset import Chat, Dataset, encode_chats, hold_out, read_chats
from training.errors import EXIT_INVALID, TrainingError
from training.masking import ChatEncoder

GOOD = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'


def refusal(path: Path, text: str | bytes) -> TrainingError:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TrainingError) as caught:
        read_chats(path)
    assert caught.value.exit_code == EXIT_INVALID
    assert caught.value.code == "data_invalid"
    return caught.value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        (f"{GOOD}\n{{oops\n", ":2: the line is not JSON"),
        (f"{GOOD}\n{GOOD[:-1]}", ":2: the line is not JSON"),
        (f"\n\n{GOOD}\n[1]\n", ":4: the row has no list"),
        ('{"prompt": "a", "completion": "b"}', ':1: the row has no list of "messages"; it has prompt, completion'),
        ('{"messages": []}', ":1: the row has no list"),
        ('{"messages": ["a"]}', ":1: message 1 is not an object"),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "robot", "content": "b"}]}',
            ":1: message 2 has the unknown role 'robot'",
        ),
        ('{"messages": [{"content": "a"}]}', ":1: message 1 has the unknown role None"),
        ('{"messages": [{"role": "user", "content": ["a"]}]}', ":1: message 1 has no text"),
        ('{"messages": [{"role": "user"}]}', ":1: message 1 has no text"),
        (b'{"messages": "\xff"}', ":1: the line is not UTF-8"),
        ("[" * 100_000, ":1: the line is not JSON"),
    ],
)
def test_faults_name_file_and_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    error = refusal(tmp_path / "d.jsonl", text)
    assert words in error.message
    assert str(tmp_path / "d.jsonl") in error.message


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(TrainingError, match=str(path)):
            read_chats(path)


def test_blank_lines_a_byte_order_mark_and_line_separators_inside_text_are_read(tmp_path: Path) -> None:
    text = "\ufeff" + GOOD + "\r\n\n" + GOOD.replace('"b"', '"b\u2028c"') + "\n"
    (tmp_path / "d.jsonl").write_text(text, encoding="utf-8")
    chats, sha256 = read_chats(tmp_path / "d.jsonl")
    assert [found.line for found in chats] == [1, 3]
    assert chats[1].messages[1]["content"] == "b\u2028c"
    assert len(sha256) == 64


def test_tool_calls_stand_for_content(tmp_path: Path) -> None:
    row = {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"type": "function"}]}]}
    assert read_chats(write_jsonl(tmp_path / "d.jsonl", [row]))[0][0].messages == row["messages"]


@pytest.fixture(scope="session")
def encoder(tiny_model: Path) -> ChatEncoder:
    from transformers import AutoTokenizer

    return ChatEncoder(AutoTokenizer.from_pretrained(tiny_model), "assistant")


def numbered(*rows: dict[str, Any]) -> list[Chat]:
    return [Chat(line, row["messages"]) for line, row in enumerate(rows, start=1)]


SHORT = chat(("user", "Hi"), ("assistant", "Hello"))
LONG_ANSWER = chat(("user", "Hi"), ("assistant", "word " * 200))
LONG_PROMPT = chat(("user", "word " * 200), ("assistant", "Hello"))


def encode(
    encoder: ChatEncoder, *rows: dict[str, Any], over_length: Literal["drop", "truncate", "error"] = "truncate"
) -> Dataset:
    return encode_chats(numbered(*rows), encoder, source="d.jsonl", max_length=40, over_length=over_length)


def test_all_masked_rows_are_refused_by_name_and_line(encoder: ChatEncoder) -> None:
    silent = chat(("user", "Hi"))
    with pytest.raises(TrainingError) as caught:
        encode(encoder, SHORT, silent, SHORT, silent)
    assert caught.value.code == "all_masked"
    assert caught.value.message == "d.jsonl: 2 rows have no token to train, on line 2, 4"


def test_over_long_rows_are_cut_and_counted(encoder: ChatEncoder) -> None:
    dataset = encode(encoder, SHORT, LONG_ANSWER, LONG_PROMPT)
    assert (len(dataset.rows), dataset.truncated, dataset.dropped) == (2, 1, 1)
    assert [row.line for row in dataset.rows] == [1, 2]
    assert len(dataset.rows[1].ids) == len(dataset.rows[1].trained) == 40
    assert dataset.tokens == len(dataset.rows[0].ids) + 40
    assert dataset.targets == sum(map(sum, (row.trained for row in dataset.rows)))


def test_over_long_rows_are_dropped_and_counted(encoder: ChatEncoder) -> None:
    dataset = encode(encoder, SHORT, LONG_ANSWER, LONG_PROMPT, over_length="drop")
    assert (len(dataset.rows), dataset.truncated, dataset.dropped) == (1, 0, 2)


def test_over_long_rows_are_refused_by_line(encoder: ChatEncoder) -> None:
    with pytest.raises(TrainingError, match=r"d\.jsonl:2: the row has \d+ tokens and max_length is 40"):
        encode(encoder, SHORT, LONG_ANSWER, over_length="error")


def test_nothing_left_to_train_is_refused(encoder: ChatEncoder) -> None:
    with pytest.raises(TrainingError, match="no row has a token to train within max_length 40"):
        encode(encoder, LONG_PROMPT)


def test_a_fault_of_one_chat_in_a_batch_names_its_line(encoder: ChatEncoder) -> None:
    broken = {"messages": [{"role": "user", "content": None, "tool_calls": [1]}, {"role": "assistant", "content": "b"}]}
    with pytest.raises(TrainingError, match=r"d\.jsonl:2: the model's chat template refuses the chat"):
        encode(encoder, SHORT, broken, SHORT)


def test_held_out_rows_are_the_same_for_the_same_seed() -> None:
    chats = numbered(*[SHORT] * 20)
    train, held_out = hold_out(chats, 5, seed=1)
    assert (train, held_out) == hold_out(chats, 5, seed=1)
    assert sorted(row.line for row in train + held_out) == list(range(1, 21))
    assert held_out != hold_out(chats, 5, seed=2)[1]


def test_holding_out_everything_is_refused() -> None:
    with pytest.raises(TrainingError, match="lower eval_rows"):
        hold_out(numbered(SHORT, SHORT), 2, seed=0)

"""The look at the data before a launch: what cannot be trained on is refused with file and line."""

from __future__ import annotations

import hashlib
import json
import os
import resource
from pathlib import Path

import pytest

from ainfinity.core.exceptions import DataInvalid
from ainfinity.services.data import look_at
from tests.services.workplace import CHAT, Workplace, write_chats

GOOD = json.dumps(CHAT).encode()
DEEP = b"[" * 100_000 + b"]" * 100_000


def test_what_is_told_of_good_data(tmp_path: Path) -> None:
    path = write_chats(tmp_path / "data.jsonl", rows=3)
    content = path.read_bytes()
    facts = look_at(str(path))
    assert (facts.rows, facts.size, facts.sha256) == (3, len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (GOOD + b"\n{oops\n", 2, "not JSON"),
        (GOOD + b"\n\n\n" + GOOD[:-3] + b"\n", 4, "not JSON"),
        (GOOD + b"\n\xff\xfe{}\n", 2, "UTF-8"),
        (b'{"messages": "caf\xe9"}\n', 1, "UTF-8"),
        (GOOD.decode().encode("utf-16"), 1, "UTF-8"),
        (GOOD.decode().encode("utf-16-le"), 1, "JSON"),
        (DEEP, 1, "nested"),
        (b'{"messages": ' + DEEP + b"}", 1, "nested"),
        (b"1" * 5000, 1, "not"),
        (b"[]", 1, "object"),
        (b"null", 1, "object"),
        (b"{}", 1, "messages"),
        (b'{"messages": []}', 1, "messages"),
        (b'{"messages": "hi"}', 1, "messages"),
        (b'{"messages": ["hi"]}', 1, "role"),
        (b'{"messages": [{"content": "hi"}]}', 1, "role"),
        (b'{"messages": [{"role": 1, "content": "hi"}]}', 1, "role"),
        (b'{"messages": [{"role": "user"}]}', 1, "content"),
        (b'{"messages": [{"role": "user", "content": null}]}', 1, "content"),
        (b'{"messages": [{"role": "user", "content": [{"type": "text"}]}]}', 1, "content"),
    ],
)  # fmt: skip
def test_bad_lines_are_named(tmp_path: Path, content: bytes, line: int, words: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataInvalid) as caught:
        look_at(str(path))
    assert caught.value.message.startswith(f"{path}:{line}: ")
    assert words in caught.value.message
    assert len(str(caught.value)) < 500
    assert (caught.value.exit_code, caught.value.field) == (2, "recipe.data")


@pytest.mark.parametrize("content", [b"", b"\n", b"\n \n\t\n"])
def test_empty_data(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataInvalid, match="empty"):
        look_at(str(path))


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf" + GOOD, GOOD + b"\r\n" + GOOD, GOOD.replace(b"Hi", "é ".encode())])
def test_what_the_trainer_takes_is_good_here_too(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    assert look_at(str(path)).rows >= 1


def test_data_that_is_no_file(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "missing.jsonl", "no such file"), (tmp_path, "no regular file")):
        with pytest.raises(DataInvalid) as caught:
            look_at(str(path))
        assert words in caught.value.message.lower()
        assert str(path) in caught.value.message


def test_data_that_would_never_end(tmp_path: Path) -> None:
    """A pipe that nobody writes to and a device without an end are no files; looking must not wait for them."""
    os.mkfifo(tmp_path / "pipe")
    for path in (str(tmp_path / "pipe"), "/dev/zero"):
        with pytest.raises(DataInvalid, match="no regular file"):
            look_at(path)


def test_a_path_that_cannot_be_one() -> None:
    for path in ("a\0b", "x" * 5000):
        with pytest.raises(DataInvalid):
            look_at(path)


def test_the_setting_at_fault_is_named(work: Workplace) -> None:
    empty = work.root / "eval.jsonl"
    empty.touch()
    with pytest.raises(DataInvalid) as caught:
        work.launch(recipe__eval_data=str(empty))
    assert caught.value.field == "recipe.eval_data"
    work.data.write_text('{"messages": [}\n')
    with pytest.raises(DataInvalid) as caught:
        work.launch()
    assert caught.value.field == "recipe.data"
    assert work.service.list_jobs() == []
    assert not work.events()


def test_large_data_is_read_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    with path.open("wb") as file:
        for _ in range(64):
            file.write((GOOD + b"\n") * 10_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert look_at(str(path)).rows == 640_000
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 32 * 1024, f"{grown} KiB for a file of {path.stat().st_size >> 10} KiB"

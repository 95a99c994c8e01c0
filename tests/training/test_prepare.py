from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from training import demo, prepare
from training.errors import TrainingError

HOLD = "import os, sys, time; os.open(sys.argv[1], os.O_CREAT | os.O_EXCL); print('held', flush=True); time.sleep(600)"


def test_the_lock_of_a_living_build_stays_and_that_of_a_dead_one_goes(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert not prepare.remove_stale_lock(tmp_path)
    builder = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True)
    try:
        assert builder.stdout is not None
        assert builder.stdout.readline() == "held\n"
        assert not prepare.remove_stale_lock(tmp_path)
        assert lock.exists()
    finally:
        builder.kill()
        builder.communicate()
    assert prepare.remove_stale_lock(tmp_path)
    assert not lock.exists()


def test_a_missing_compiler_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    with pytest.raises(TrainingError, match="g\\+\\+") as caught:
        prepare.build()
    assert caught.value.code == "compiler_missing"
    assert "apt install g++" in caught.value.hint


def test_docstrings_of_public_things_become_chats(tmp_path: Path) -> None:
    package = tmp_path / "lib"
    (package / "test").mkdir(parents=True)
    text = '"""A docstring that is long enough to be an answer."""'
    (package / "shutil.py").write_text(
        textwrap.dedent(
            f"""
            def copytree(a):
                {text}
            def _private():
                {text}
            def terse():
                '''Too short.'''
            class Box:
                def __eq__(self, other):
                    {text}
                def get(self):
                    {text}
            """
        )
    )
    (package / "_hidden.py").write_text(f"def f():\n    {text}\n")
    (package / "test" / "case.py").write_text(f"def f():\n    {text}\n")
    (package / "broken.py").write_text("def f(:\n")
    answer = "A docstring that is long enough to be an answer."
    assert list(demo.docstring_chats(package)) == [
        ("What does the Python function `shutil.copytree` do?", answer),
        ("What does the Python function `shutil.Box.get` do?", answer),
    ]


def test_the_demos_data_are_the_same_every_time_and_share_no_row(tmp_path: Path) -> None:
    texts: list[dict[str, str]] = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        demo.write_docstrings(folder)
        texts.append({path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()})
    assert texts[0] == texts[1]
    answers = {
        name: {json.loads(line)["messages"][1]["content"] for line in text.splitlines()}
        for name, text in texts[0].items()
    }
    assert len(answers["train.jsonl"]) == demo.TRAIN_ROWS
    assert len(answers["eval.jsonl"]) == demo.EVAL_ROWS
    assert not answers["train.jsonl"] & answers["eval.jsonl"]


def test_a_folder_appears_only_when_it_is_whole_and_is_made_once(tmp_path: Path) -> None:
    target, made = tmp_path / "model", 0

    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError(28, os.strerror(28))

    def make(folder: Path) -> None:
        nonlocal made
        made += 1
        (folder / "whole").write_text("x")

    with pytest.raises(OSError, match="No space"):
        demo._make_once(target, fail)
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):
        demo._make_once(target, make)
    assert (made, [path.name for path in target.iterdir()]) == (1, ["whole"])

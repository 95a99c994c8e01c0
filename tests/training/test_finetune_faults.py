"""What can go wrong in a run, each named by its code, with what to do."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.training.helpers import RecipeMaker, Server, chat, failure, finished, losses, of_kind, write_jsonl


def test_a_run_that_diverges_fails_and_exports_nothing(
    trainer: Server, tiny_recipe: RecipeMaker, tmp_path: Path
) -> None:
    run = trainer.run(tiny_recipe(lr=1e30, schedule="constant"), tmp_path)
    assert "lower lr" in failure(run, "diverged", 1)
    assert all(math.isfinite(loss) for loss in losses(run.lines()).values())
    assert not (tmp_path / "model").exists()


def test_a_rank_that_is_killed_is_a_failure_that_says_so(
    trainer: Server, tiny_recipe: RecipeMaker, tmp_path: Path
) -> None:
    run = trainer.start(tiny_recipe(max_steps=100_000), tmp_path)
    run.wait_for("step")
    os.kill(run.pids[1], signal.SIGKILL)
    assert "out of memory" in failure(run.wait(), "rank_lost", 1)


def test_a_full_disk_is_a_failure_that_says_so(trainer: Server, tiny_recipe: RecipeMaker, tmp_path: Path) -> None:
    run = trainer.run(tiny_recipe(max_steps=1), tmp_path, world=1, file_limit=200_000)
    assert "free some space" in failure(run, "disk_full", 1)
    assert not list((tmp_path / "checkpoints").glob("step-*"))


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"model": "/nowhere/model"}, "model_not_found", "/nowhere/model does not exist"),
        ({"model": "nobody/no-such-model"}, "model_not_found", "hub is switched off"),
        ({"data": "/nowhere/d.jsonl"}, "data_invalid", "/nowhere/d.jsonl does not exist"),
        ({"eval_data": "/nowhere/e.jsonl"}, "data_invalid", "/nowhere/e.jsonl does not exist"),
        ({"eval_data": None, "eval_rows": 40}, "data_invalid", "lower eval_rows"),
        ({"lora": {"targets": ["no_such_module"]}}, "bad_recipe", "lora.targets"),
        ({"lr": -1}, "bad_recipe", "lr: input should be greater than or equal to 0"),
        ({"leaning_rate": 1}, "bad_recipe", "leaning_rate: unknown setting"),
    ],
)
def test_a_wrong_recipe_fails_with_a_clear_line(
    changes: dict[str, Any], code: str, words: str, trainer: Server, tiny_recipe: RecipeMaker, tmp_path: Path
) -> None:
    run = trainer.run(tiny_recipe(**changes), tmp_path, world=1)
    assert words in failure(run, code, 2)
    assert "Traceback" not in run.stderr.read_text()


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("", "data_invalid", "is empty"),
        ("{\n", "data_invalid", ":1: the line is not JSON"),
        (json.dumps(chat(("user", "a"))), "all_masked", "1 rows have no token to train, on line 1"),
    ],
)
def test_wrong_data_fail_with_a_clear_line_on_all_ranks(
    text: str, code: str, words: str, trainer: Server, tiny_recipe: RecipeMaker, tmp_path: Path
) -> None:
    (tmp_path / "d.jsonl").write_text(text)
    run = trainer.run(tiny_recipe(data=str(tmp_path / "d.jsonl")), tmp_path / "out")
    assert words in failure(run, code, 2)
    assert len(of_kind(run.lines(), "failed")) == 1


def test_a_model_folder_without_a_model_is_refused(trainer: Server, tiny_recipe: RecipeMaker, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run = trainer.run(tiny_recipe(model=str(tmp_path / "empty")), tmp_path / "out", world=1)
    assert "holds no config.json" in failure(run, "model_not_found", 2)


def test_a_folder_that_cannot_be_written_is_refused_before_training(
    trainer: Server, tiny_recipe: RecipeMaker, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    run = trainer.run(tiny_recipe(), tmp_path / "file" / "out", world=1)
    assert "cannot be written" in failure(run, "not_writable", 1)
    assert [line.kind for line in run.lines()] == ["failed"]


def test_a_missing_compiler_is_named(trainer: Server, tiny_recipe: RecipeMaker, tmp_path: Path) -> None:
    bare = {"PATH": str(tmp_path), "TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions")}
    run = trainer.run(tiny_recipe(), tmp_path / "out", world=1, env=bare)
    assert "install g++" in failure(run, "compiler_missing", 1)


def test_overrides_and_relative_paths_are_taken_from_the_command_line_and_the_file(
    trainer: Server, tiny_recipe: RecipeMaker, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "own.jsonl", [chat(("user", "a"), ("assistant", "b"))] * 4)
    run = trainer.run(tiny_recipe(max_steps=None), tmp_path / "out", f"data={tmp_path}/own.jsonl", "epochs=2", world=1)
    assert run.lines()[0].data["rows"] == 4
    assert finished(run)["step"] == 4

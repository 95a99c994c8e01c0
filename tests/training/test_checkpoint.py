from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.checkpoint import MARKER, State, _complete, _remove_old, find_checkpoint
from training.errors import TrainingError
from training.files import damage, describe_files


def write(folder: Path, step: int, attempt: str = "job-a1") -> Path:
    """A checkpoint with the real marker, whose contents are two small files."""
    path, writing = folder / f"step-{step:06d}", folder / f".step-{step:06d}.writing"
    (writing / "engine").mkdir(parents=True)
    (writing / "engine" / "weights").write_text(f"weights of {step} by {attempt}")
    (writing / "random-0.pt").write_text("random")
    state = State(step=step, position=step * 8, world_size=2, zero_stage=2, attempt=attempt, data_sha256="")
    _complete(writing, path, state)
    return path


def found(folder: Path, attempt: str = "job-a1", resume_step: int | None = None) -> str | None:
    checkpoint, _ = find_checkpoint(folder, attempt, resume_step)
    return checkpoint.path.name if checkpoint else None


def test_the_newest_complete_checkpoint_is_found(tmp_path: Path) -> None:
    assert found(tmp_path) is None
    write(tmp_path, 2)
    write(tmp_path, 10)
    assert found(tmp_path) == "step-000010"


def test_writing_aside_leaves_nothing_that_looks_like_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / ".step-000004.writing").mkdir()
    (tmp_path / "step-000005.old").mkdir()
    assert find_checkpoint(tmp_path, "", None) == (None, [])


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: (path / MARKER).unlink(), "not written to its end"),
        (lambda path: (path / MARKER).write_text("{"), "cannot be read"),
        (lambda path: (path / MARKER).write_text('{"serial": 9, "state": {"step": 4}, "files": []}'), "cannot be read"),
        (lambda path: (path / "random-0.pt").unlink(), "random-0.pt is missing"),
        (lambda path: (path / "engine" / "weights").write_text("cut"), "has 3 bytes instead of"),
        (lambda path: (path / "random-0.pt").write_text("rendom"), "contents of random-0.pt have changed"),
    ],
)
def test_a_damaged_newest_checkpoint_is_passed_over_and_named(tmp_path: Path, harm, words: str) -> None:
    write(tmp_path, 2)
    assert found(tmp_path) == "step-000002"
    harm(write(tmp_path, 4))
    checkpoint, passed_over = find_checkpoint(tmp_path, "", None)
    assert checkpoint is not None
    assert checkpoint.path.name == "step-000002"
    (reason,) = passed_over
    assert reason.startswith("step-000004: ")
    assert words in reason


def test_a_retry_goes_on_from_the_step_it_was_told(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        write(tmp_path, step)
    assert found(tmp_path, "job-a2", resume_step=4) == "step-000004"
    assert found(tmp_path, "job-a2", resume_step=0) is None


def test_a_recovered_retry_goes_on_from_its_own_newest_checkpoint(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        write(tmp_path, step)
    write(tmp_path, 3, "job-a2")
    assert found(tmp_path, "job-a2", resume_step=2) == "step-000003"
    assert found(tmp_path, "job-a3") == "step-000003"


def test_an_incomplete_step_to_retry_from_is_refused_with_those_that_are_complete(tmp_path: Path) -> None:
    write(tmp_path, 2)
    (write(tmp_path, 4) / "random-0.pt").unlink()
    for step in (3, 4):
        with pytest.raises(TrainingError, match=f"no complete checkpoint of step {step}") as caught:
            find_checkpoint(tmp_path, "job-a2", step)
        assert caught.value.code == "checkpoint_missing"
        assert "2" in caught.value.hint


def test_the_newest_written_are_kept_also_after_going_back(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        write(tmp_path, step)
    write(tmp_path, 3, "job-a2")
    _remove_old(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000003", "step-000006"]


def test_a_step_that_is_written_again_replaces_the_old_one(tmp_path: Path) -> None:
    write(tmp_path, 2)
    path = write(tmp_path, 2, "job-a2")
    assert (path / "engine" / "weights").read_text() == "weights of 2 by job-a2"
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-000002"]
    assert json.loads((path / MARKER).read_text())["serial"] == 2


def test_a_manifest_sees_every_change(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    files = describe_files(tmp_path)
    assert damage(tmp_path, files) is None
    (tmp_path / "a").write_text("2")
    assert damage(tmp_path, files) == "the contents of a have changed"

"""Pulling results: every file is checked against what the trainer recorded, and comes whole or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from ainfinity.core.exceptions import DataInvalid, FolderUnwritable, NotFound, UsageError
from ainfinity.schema.states import JobState
from ainfinity.schema.views import ArtifactRow
from ainfinity.services.artifacts import ArtifactService
from ainfinity.store import jobs
from tests.services.workplace import Workplace

FILES = {"adapter_model.safetensors": b"weights" * 1000, "adapter_config.json": b"{}", "nested/tokenizer.json": b"[]"}


class Results:
    """A job that left an adapter, two checkpoints and a log."""

    def __init__(self, work: Workplace, state: JobState = JobState.SUCCEEDED) -> None:
        self.work = work
        self.job = work.in_state(state)
        self.folder = work.settings.jobs_dir / self.job
        self.adapter = self.folder / "output" / "adapter"
        self.service = ArtifactService(work.store, work.settings.attempts_dir)
        self.target = work.root / "out"
        self.export(1)
        for step in (4, 8):
            self.checkpoint(step)
        log = work.settings.attempts_dir / f"ain-{self.job}-a1" / "log.txt"
        log.parent.mkdir(parents=True)
        log.write_text("hello\n")

    def export(self, attempt: int, files: dict[str, bytes] = FILES) -> None:
        rows = [ArtifactRow(self.job, attempt, "adapter", str(self.adapter), 0, "", 1.0, 8)]
        for name, content in files.items():
            path = self.adapter / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            rows.append(ArtifactRow(self.job, attempt, "file", name, len(content), digest, 1.0))
        self.record(rows)

    def checkpoint(self, step: int) -> None:
        path = self.folder / "checkpoints" / f"step-{step:06}"
        path.mkdir(parents=True)
        # Named as a file of the export is, and another file all the same.
        (path / "adapter_config.json").write_text(f"state of {step}")
        self.record([ArtifactRow(self.job, 1, "checkpoint", str(path), 0, "", float(step), step)])

    def record(self, rows: list[ArtifactRow]) -> None:
        with self.work.store.write() as connection:
            jobs.add_artifacts(connection, rows)

    def pull(self, what: str = "adapter") -> list[str]:
        return self.service.pull(self.job, what, str(self.target))

    def pulled(self) -> list[str]:
        folder = self.target / "adapter"
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def results(work: Workplace) -> Results:
    return Results(work)


def test_an_adapter_is_brought_whole(results: Results) -> None:
    paths = results.pull()
    assert sorted(paths) == sorted(str(results.target / "adapter" / name) for name in FILES)
    assert {name: (results.target / "adapter" / name).read_bytes() for name in FILES} == FILES


def test_pulling_again_leaves_equal_files_alone_and_mends_the_rest(results: Results) -> None:
    results.pull()
    weights, config = (results.target / "adapter" / name for name in list(FILES)[:2])
    os.utime(weights, (1, 1))
    config.write_bytes(b"half a fi")
    results.pull()
    assert weights.stat().st_mtime == 1
    assert config.read_bytes() == FILES[config.name]


def test_a_pull_that_was_cut_is_gone_on_with(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    real, copied = shutil.copyfile, []

    def cut(source: Path, target: Path) -> None:
        if len(copied) == 1:
            target.write_bytes(source.read_bytes()[:100])
            raise KeyboardInterrupt
        copied.append(real(source, target))

    monkeypatch.setattr(shutil, "copyfile", cut)
    with pytest.raises(KeyboardInterrupt):
        results.pull()
    assert [name for name in results.pulled() if not name.endswith(".part")] == ["adapter_config.json"]
    monkeypatch.setattr(shutil, "copyfile", real)
    results.pull()
    assert results.pulled() == sorted(FILES)


@pytest.mark.parametrize("harm", ["changed", "emptied", "removed", "removed with its folder"])
def test_a_damaged_export_is_refused(results: Results, harm: str) -> None:
    path = results.adapter / "nested" / "tokenizer.json"
    match harm:
        case "changed":
            path.write_bytes(b"[x")
        case "emptied":
            path.write_bytes(b"")
        case "removed":
            path.unlink()
        case _:
            path.unlink()
            path.parent.rmdir()
    with pytest.raises(DataInvalid) as caught:
        results.pull()
    assert "tokenizer.json" in caught.value.message
    assert caught.value.hint
    assert not (results.target / "adapter" / "nested" / "tokenizer.json").exists()


def test_a_checkpoint_is_the_newest_or_the_one_asked_for(results: Results) -> None:
    (path,) = results.pull("checkpoint")
    assert Path(path).read_text() == "state of 8"
    (path,) = results.pull("checkpoint:4")
    assert Path(path).read_text() == "state of 4"
    with pytest.raises(NotFound) as caught:
        results.pull("checkpoint:5")
    assert "ainfinity show" in caught.value.hint


def test_what_a_later_attempt_exported_counts(results: Results) -> None:
    results.export(2, {**FILES, "adapter_config.json": b'{"new": 1}'})
    results.pull()
    assert (results.target / "adapter" / "adapter_config.json").read_bytes() == b'{"new": 1}'


def test_a_later_attempt_need_not_leave_what_the_first_did(results: Results) -> None:
    (results.adapter / "nested" / "tokenizer.json").unlink()
    results.export(2, {"adapter_config.json": b'{"new": 1}'})
    results.pull()
    assert (results.target / "adapter" / "adapter_config.json").read_bytes() == b'{"new": 1}'


def test_a_checkpoint_that_was_cleared_away_is_not_offered(results: Results) -> None:
    path = results.folder / "checkpoints" / "step-000008"
    (path / "adapter_config.json").unlink()
    path.rmdir()
    assert [row.step for row in results.service.list(results.job) if row.kind == "checkpoint"] == [4]
    assert Path(*results.pull("checkpoint")).read_text() == "state of 4"


def test_logs_are_named_after_the_job(results: Results) -> None:
    (path,) = results.pull("logs")
    assert path == str(results.target / "first-attempt-1.log")
    assert Path(path).read_text() == "hello\n"


@pytest.mark.parametrize("what", ["", "weights", "adapter:3", "checkpoint:x", "checkpoint:-1", "logs:1", "../adapter"])
def test_what_cannot_be_pulled(results: Results, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        results.pull(what)
    assert "checkpoint" in caught.value.hint


def test_a_target_that_cannot_be_written(results: Results) -> None:
    results.target.write_text("a file and no folder")
    with pytest.raises(FolderUnwritable) as caught:
        results.pull()
    assert caught.value.exit_code == 4
    results.target.unlink()
    (results.target / "adapter" / "adapter_config.json").mkdir(parents=True)
    with pytest.raises(FolderUnwritable):
        results.pull()
    assert not list(results.target.rglob("*.part"))


def test_pulling_to_where_the_results_are_changes_nothing(results: Results) -> None:
    results.service.pull(results.job, "adapter", str(results.adapter.parent))
    assert {name: (results.adapter / name).read_bytes() for name in FILES} == FILES

"""Data that is kept by its content: whole or not at all, once, and for the launch as it was planned."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ainfinity.core.exceptions import DataInvalid, FolderUnwritable, NameTaken, NotAllowed, NotFound, WrongState
from ainfinity.core.exceptions import UsageError as Usage
from ainfinity.schema.states import JobState
from ainfinity.services import datasets as module
from ainfinity.services.data import look_at
from ainfinity.services.datasets import DatasetService
from ainfinity.services.training_service import TrainingService
from ainfinity.store.datasets import content_path, shared_path, with_fixed_data
from tests.services.workplace import ADMIN, VIEWER, Workplace, write_chats

SECONDS = 60.0


@pytest.fixture
def data(work: Workplace) -> DatasetService:
    return DatasetService(work.store, work.settings.data_dir)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_kept_once_and_never_changes(work: Workplace, data: DatasetService) -> None:
    row = data.add(str(work.data), ADMIN)
    kept = data.path_of(row)
    assert (row.name, row.rows, row.size, row.sha256) == ("data", 4, work.data.stat().st_size, digest(work.data))
    assert kept.read_bytes() == work.data.read_bytes()
    assert kept.stat().st_mode & 0o222 == 0
    assert data.add(str(work.data), ADMIN) == row
    renamed = data.add(str(work.data), ADMIN, name="better")
    assert data.list() == [renamed]
    assert data.show("better") == data.show(row.sha256[:8]) == data.show(f"sha256:{row.sha256}") == renamed
    write_chats(work.data, rows=9)
    assert digest(kept) == row.sha256, "an edit of the file must not reach what is kept"
    assert {path.name for path in kept.parent.parent.iterdir()} == {row.sha256}


def test_what_is_refused(work: Workplace, data: DatasetService) -> None:
    data.add(str(work.data), ADMIN, name="mine")
    other = write_chats(work.root / "other.jsonl", rows=7)
    with pytest.raises(NameTaken, match="mine"):
        data.add(str(other), ADMIN, name="mine")
    with pytest.raises(Usage):
        data.add(str(other), ADMIN, name="a/b")
    with pytest.raises(NotAllowed):
        data.add(str(other), VIEWER)
    with pytest.raises(DataInvalid, match="no such file"):
        data.add(str(work.root / "nowhere.jsonl"), ADMIN)
    other.write_text("no json\n")
    with pytest.raises(DataInvalid, match=r"other\.jsonl:1"):
        data.add(str(other), ADMIN)
    with pytest.raises(NotFound):
        data.show("nothing")
    assert [row.name for row in data.list()] == ["mine"]


def test_a_live_job_holds_its_data(work: Workplace, data: DatasetService) -> None:
    work.service = TrainingService(work.store, keep_data=data.keep)
    job = work.in_state(JobState.RUNNING)
    (row,) = data.list()
    assert row.name == f"data-{row.sha256[:8]}"
    with pytest.raises(WrongState, match="first"):
        data.remove(row.name, ADMIN)
    assert data.path_of(row).is_file()
    work.record(job, "attempt.succeeded", "job.succeeded")
    data.remove(row.name, ADMIN)
    assert data.list() == []
    assert not data.path_of(row).parent.exists()


def test_a_launch_trains_on_what_was_planned(work: Workplace, data: DatasetService) -> None:
    work.service = TrainingService(work.store, keep_data=data.keep)
    detail = work.service.get_job_status(work.launch().id)
    planned = digest(work.data)
    write_chats(work.data, rows=8)
    assert digest(work.data) != planned
    assert detail.plan is not None
    fixed = with_fixed_data(detail.spec, detail.plan, work.settings.data_dir)
    assert digest(Path(fixed["recipe"]["data"])) == planned
    assert detail.spec["recipe"]["data"] == str(work.data), "people are shown the file that they named"
    untouched = with_fixed_data(detail.spec, {}, work.settings.data_dir)
    assert untouched["recipe"]["data"] == str(work.data)
    work.data.unlink()
    with pytest.raises(DataInvalid, match="not there any more"):
        with_fixed_data(detail.spec, {}, work.settings.data_dir)


def test_a_job_may_name_data_that_is_kept(work: Workplace, data: DatasetService) -> None:
    row = data.add(str(work.data), ADMIN, name="chats")
    for named in ("chats", f"sha256:{row.sha256}"):
        spec = data.resolve(work.spec(recipe__data=named, recipe__eval_data=named))
        assert spec.recipe is not None
        assert spec.recipe.data == spec.recipe.eval_data == str(data.path_of(row))
    assert data.resolve(work.spec()) == work.spec()
    with pytest.raises(NotFound, match=r"recipe.data: there is no file and no data set 'cats'"):
        data.resolve(work.spec(recipe__data="cats"))
    data.path_of(row).unlink()
    with pytest.raises(DataInvalid, match="gone"):
        data.resolve(work.spec(recipe__data="chats"))


def test_data_goes_once_to_a_folder_that_machines_share(work: Workplace, data: DatasetService) -> None:
    shared = work.root / "shared"
    shared.mkdir()
    spec = work.spec(resources__infra="slurm/x", resources__storage=str(shared))
    data.place(spec)
    target = shared_path(str(shared), digest(work.data))
    first = target.stat().st_ino
    data.place(spec)
    assert target.stat().st_ino == first
    assert data.list()[0].places == (str(target),)
    fixed = with_fixed_data(spec.as_json(), {"data_sha256": digest(work.data)}, work.settings.data_dir)
    assert fixed["recipe"]["data"] == str(target)
    elsewhere = work.spec(resources__infra="slurm/x", resources__storage="/nowhere/seen/from/here")
    data.place(elsewhere)
    assert not Path("/nowhere").exists()
    fixed = with_fixed_data(elsewhere.as_json(), {"data_sha256": digest(work.data)}, work.settings.data_dir)
    assert fixed["recipe"]["data"] == str(content_path(work.settings.data_dir, digest(work.data)))


@pytest.mark.parametrize("left", ["half", "all", "garbage", "too much"])
def test_what_a_killed_copy_left_is_gone_on_with(work: Workplace, data: DatasetService, left: str) -> None:
    content = work.data.read_bytes()
    target = content_path(work.settings.data_dir, digest(work.data))
    aside = target.parent.parent / f".{target.parent.name}.part"
    aside.parent.mkdir(parents=True)
    leftover = {"half": content[:37], "all": content, "garbage": b"x" * 50, "too much": content + b"more"}[left]
    aside.write_bytes(leftover)
    row = data.add(str(work.data), ADMIN)
    assert data.path_of(row).read_bytes() == content
    assert not aside.exists()


def test_a_copy_goes_on_where_it_stopped(work: Workplace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only the missing bytes are read again, also where the kernel cannot copy by itself."""
    content = work.data.read_bytes()
    for by_hand in (False, True):
        if by_hand:
            monkeypatch.delattr(os, "copy_file_range", raising=False)
        target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            os.write(target, b"?" * 40)
            module._copy(work.data, target)
        finally:
            os.close(target)
        assert (tmp_path / "target").read_bytes() == b"?" * 40 + content[40:]


def test_a_source_that_changes_is_refused(work: Workplace, data: DatasetService) -> None:
    facts = look_at(str(work.data))
    write_chats(work.data, rows=5)
    target = content_path(work.settings.data_dir, facts.sha256)
    with pytest.raises(DataInvalid, match="changes while it is read"):
        module.copy_checked(work.data, target, facts)
    assert not target.exists()
    assert list(target.parent.parent.iterdir()) == []


def test_a_full_disk_leaves_nothing_wrong(work: Workplace, data: DatasetService) -> None:
    def full(target: int, piece: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(os, "copy_file_range", raising=False)
        patch.setattr(module, "_write_all", full)
        with pytest.raises(FolderUnwritable, match="No space left"):
            data.add(str(work.data), ADMIN)
    assert data.list() == []
    assert data.path_of(data.add(str(work.data), ADMIN)).is_file()


ADD = """
import sys
from pathlib import Path
from ainfinity.core.config import Settings
from ainfinity.schema.actor import Actor
from ainfinity.services import datasets
from ainfinity.store.store import open_store
data_dir, file = Path(sys.argv[1]), sys.argv[2]
datasets._PIECE = 4096
store = open_store(Settings(data_dir=data_dir, config_dir=data_dir))
service = datasets.DatasetService(store, data_dir)
print("ready", flush=True)
sys.stdin.readline()
print(service.add(file, Actor("local:ann")).sha256, flush=True)
"""


def start(work: Workplace, file: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", ADD, str(work.settings.data_dir), str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_two_at_once_are_one(work: Workplace, data: DatasetService) -> None:
    big = write_chats(work.root / "big.jsonl", rows=30_000)
    both = [start(work, big) for _ in range(2)]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    sums = [process.communicate(timeout=SECONDS)[0].strip() for process in both]
    assert sums == [digest(big)] * 2
    assert [row.name for row in data.list()] == ["big"]
    assert [path.name for path in (work.settings.data_dir / "data").iterdir()] == [digest(big)]


def test_a_kill_at_any_moment_leaves_a_whole_file_or_none(work: Workplace, data: DatasetService) -> None:
    big = write_chats(work.root / "big.jsonl", rows=30_000)
    target = content_path(work.settings.data_dir, digest(big))
    for delay in (0.0, 0.02, 0.05, 0.1, 0.2):
        process = start(work, big)
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        time.sleep(delay)
        process.kill()
        process.communicate()
        assert not target.exists() or digest(target) == digest(big)
    assert digest(data.path_of(data.add(str(big), ADMIN))) == digest(big)

"""Pulling from wherever results are: brought home, in a shared folder, in a bucket, on a machine that still runs."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ainfinity.core.exceptions import ComputeUnreachable, DataInvalid, MissingTool, NotFound, Unreachable, WrongState
from ainfinity.schema.states import JobState
from ainfinity.schema.views import ArtifactRow
from ainfinity.services import copying
from ainfinity.services.artifacts import ArtifactService
from ainfinity.store import jobs
from tests.compute.remote.machine import FakeMachine, make_machine
from tests.services.workplace import Workplace

FILES = {"adapter_model.safetensors": b"weights" * 20_000, "adapter_config.json": b"{}", "nested/a b.json": b"[]"}
CHECKPOINT = {"COMPLETED": b"{}", "engine/state.pt": b"state" * 1000}


class Elsewhere:
    """A job on a machine elsewhere, whose trainer tells the paths of that machine."""

    def __init__(self, work: Workplace, fake: FakeMachine, state: JobState, storage: str | None) -> None:
        changes: dict[str, Any] = {"resources__infra": "slurm/x"}
        if storage is not None:
            changes["resources__storage"] = storage
        work.service.backends = ("local", "skypilot")
        self.work, self.fake = work, fake
        self.job = work.in_state(state, **changes)
        self.service = ArtifactService(work.store, work.settings.attempts_dir, lambda name: fake.machine)
        self.out = work.root / "out"
        self.seen: list[tuple[int, int]] = []
        self.told = f".ainfinity/jobs/{self.job}"

    def record(self) -> None:
        """Store what the trainer said."""
        base = f"{self.fake.home}/{self.told}"
        rows = [
            ArtifactRow(self.job, 1, "adapter", f"{base}/output/adapter", 0, "", 2.0, 8),
            ArtifactRow(self.job, 1, "checkpoint", f"{base}/checkpoints/step-000008", 0, "", 1.0, 8),
        ]
        for name, data in FILES.items():
            rows.append(ArtifactRow(self.job, 1, "file", name, len(data), hashlib.sha256(data).hexdigest(), 2.0))
        with self.work.store.write() as connection:
            jobs.add_artifacts(connection, rows)

    def fill(self, root: Path) -> None:
        """Write export and checkpoint below the job's folder somewhere."""
        for folder, files in (("output/adapter", FILES), ("checkpoints/step-000008", CHECKPOINT)):
            for name, data in files.items():
                path = root / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)

    def pull(self, what: str) -> dict[str, bytes]:
        paths = self.service.pull(self.job, what, str(self.out), lambda came, total: self.seen.append((came, total)))
        return {str(Path(path).relative_to(self.out)): Path(path).read_bytes() for path in paths}

    def places(self) -> dict[str, str]:
        return {row.kind: row.path for row in self.service.list(self.job) if row.kind != "file"}


ADAPTER = {f"adapter/{name}": data for name, data in FILES.items()}
STEP = {f"step-000008/{name}": data for name, data in CHECKPOINT.items()}


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    return make_machine(tmp_path, monkeypatch)


def test_what_was_brought_home_is_here(work: Workplace, fake: FakeMachine) -> None:
    job = Elsewhere(work, fake, JobState.SUCCEEDED, None)
    job.record()
    home = work.settings.jobs_dir / job.job
    job.fill(home)
    (home / "checkpoints").rename(home / "other")
    assert job.places() == {"adapter": str(home / "output" / "adapter")}  # the checkpoint went with its machine
    assert job.pull("adapter") == ADAPTER
    assert job.seen[-1] == (sum(map(len, FILES.values())),) * 2
    with pytest.raises(NotFound):
        job.pull("checkpoint")
    assert fake.calls == 0


def test_a_shared_folder_is_read_where_it_is(work: Workplace, fake: FakeMachine, tmp_path: Path) -> None:
    job = Elsewhere(work, fake, JobState.SUCCEEDED, str(tmp_path / "nfs"))
    job.record()
    job.fill(tmp_path / "nfs" / job.job)
    assert job.pull("adapter") == ADAPTER
    assert job.pull("checkpoint:8") == STEP
    assert job.places()["adapter"] == str(tmp_path / "nfs" / job.job / "output" / "adapter")
    assert fake.calls == 0


def test_a_job_that_runs_gives_its_checkpoint(work: Workplace, fake: FakeMachine) -> None:
    job = Elsewhere(work, fake, JobState.RUNNING, None)
    job.record()
    job.fill(fake.home / job.told)
    name = f"ain-{job.job}-a1"
    assert job.places()["checkpoint"] == f"{name}:{fake.home}/{job.told}/checkpoints/step-000008"
    fake.be("cut", 3000)
    with pytest.raises(ComputeUnreachable):
        job.pull("checkpoint")
    fake.be("")
    assert job.pull("checkpoint") == STEP
    assert job.pull("adapter") == ADAPTER
    job.service.reach = None
    (job.out / "step-000008" / "COMPLETED").unlink()
    with pytest.raises(WrongState):
        job.pull("checkpoint")


def test_an_export_on_a_machine_must_be_what_the_trainer_recorded(work: Workplace, fake: FakeMachine) -> None:
    job = Elsewhere(work, fake, JobState.RUNNING, None)
    job.record()
    job.fill(fake.home / job.told)
    fake.write(f"{job.told}/output/adapter/adapter_config.json", b"[]")
    with pytest.raises(DataInvalid, match="adapter_config"):
        job.pull("adapter")
    assert not (job.out / "adapter" / "adapter_config.json").exists()


@pytest.mark.parametrize("path", ["/etc", "/x/{job}/output/../../../etc", "{jobs}/other/output/adapter", "relative"])
def test_a_trainers_path_leads_nowhere_but_to_its_own_jobs_folder(
    work: Workplace, fake: FakeMachine, path: str
) -> None:
    job = Elsewhere(work, fake, JobState.RUNNING, None)
    other = work.settings.jobs_dir / "other" / "output" / "adapter"
    other.mkdir(parents=True)
    (other / "secret").write_text("another job's")
    told = path.format(job=job.job, jobs=work.settings.jobs_dir)
    with work.store.write() as connection:
        jobs.add_artifacts(connection, [ArtifactRow(job.job, 1, "adapter", told, 0, "", 2.0, 8)])
    assert job.places() == {}
    with pytest.raises(NotFound):
        job.pull("adapter")
    assert fake.calls == 0


@pytest.fixture
def bucket(work: Workplace, fake: FakeMachine) -> Iterator[Elsewhere]:
    fsspec: Any = importlib.import_module("fsspec")
    job = Elsewhere(work, fake, JobState.SUCCEEDED, "s3://models/mine/")
    job.record()
    memory = fsspec.filesystem("memory")
    for folder, files in (("output/adapter", FILES), ("checkpoints/step-000008", CHECKPOINT)):
        for name, data in files.items():
            memory.pipe(f"/mine/{job.job}/{folder}/{name}", data)
    yield job
    memory.rm("/mine", recursive=True)


@pytest.fixture
def _open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the bucket be one in memory."""
    core: Any = importlib.import_module("fsspec").core
    real = core.url_to_fs
    monkeypatch.setattr(core, "url_to_fs", lambda url: real(url.replace("s3://models", "memory:/")))


@pytest.mark.usefixtures("_open")
def test_a_bucket_is_read_through_fsspec(bucket: Elsewhere) -> None:
    assert bucket.places()["adapter"] == f"s3://models/mine/{bucket.job}/output/adapter"
    part = bucket.out / "adapter" / "adapter_model.safetensors.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(FILES["adapter_model.safetensors"][:5000])
    assert bucket.pull("adapter") == ADAPTER
    assert bucket.pull("checkpoint") == STEP
    total = sum(map(len, CHECKPOINT.values()))
    assert bucket.seen[-1] == (total, total)
    assert not part.exists()


@pytest.mark.usefixtures("_open")
@pytest.mark.parametrize("begun", [b"", b"of another file", b"x" * 200_000])
def test_a_damaged_bucket_is_refused_and_rests_of_other_files_do_no_harm(bucket: Elsewhere, begun: bytes) -> None:
    memory: Any = importlib.import_module("fsspec").filesystem("memory")
    part = bucket.out / "adapter" / "adapter_model.safetensors.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(begun)
    assert bucket.pull("adapter") == ADAPTER
    memory.pipe(f"/mine/{bucket.job}/output/adapter/adapter_config.json", b"[]")
    (bucket.out / "adapter" / "adapter_config.json").unlink()
    with pytest.raises(DataInvalid, match="adapter_config"):
        bucket.pull("adapter")
    memory.rm(f"/mine/{bucket.job}/output/adapter/adapter_config.json")
    with pytest.raises(NotFound, match="adapter_config"):
        bucket.pull("adapter")


def test_without_the_package_for_a_bucket_it_is_named_with_the_way(
    bucket: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(copying.importlib, "import_module", missing)
    with pytest.raises(MissingTool) as caught:
        bucket.pull("adapter")
    assert f"s3://models/mine/{bucket.job}/output/adapter" in caught.value.message
    assert "pip install fsspec s3fs" in caught.value.hint


@pytest.mark.usefixtures("_open")
def test_a_bucket_that_does_not_answer(bucket: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    memory: Any = importlib.import_module("fsspec").get_filesystem_class("memory")

    def find(*arguments: Any, **named: Any) -> Any:
        raise RuntimeError("403 Forbidden")

    with monkeypatch.context() as broken:
        broken.setattr(memory, "find", find)
        with pytest.raises(Unreachable, match="403"):
            bucket.pull("adapter")


def test_what_may_be_pulled_is_also_merged(work: Workplace, fake: FakeMachine) -> None:
    """A full export is the model as it was trained: there is nothing to merge."""
    job = Elsewhere(work, fake, JobState.SUCCEEDED, None)
    model = work.settings.jobs_dir / job.job / "output" / "model"
    model.mkdir(parents=True)
    (model / "weights").write_bytes(b"w")
    row = ArtifactRow(job.job, 1, "model", f"/far/{job.job}/output/model", 0, "", 1.0, 8)
    with work.store.write() as connection:
        jobs.add_artifacts(connection, [row])
    assert job.pull("merged") == {"model/weights": b"w"}


def test_show_tells_where_things_are_now(work: Workplace, fake: FakeMachine) -> None:
    job = Elsewhere(work, fake, JobState.SUCCEEDED, None)
    job.record()
    home = work.settings.jobs_dir / job.job
    job.fill(home)
    told = {row.kind: row.path for row in work.service.get_job_status(job.job).artifacts}
    assert told["adapter"] == str(home / "output" / "adapter")
    assert told["checkpoint"] == str(home / "checkpoints" / "step-000008")

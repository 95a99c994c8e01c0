"""An export counts once it lies where it outlives its machine, and is what was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ainfinity.compute.outputs import inside_job
from ainfinity.compute.remote.bringing import RemoteTransfer
from ainfinity.compute.remote.record import Record, Records
from ainfinity.compute.remote.rows import Gone
from ainfinity.core.exceptions import ComputeUnreachable
from tests.compute.remote.machine import FakeMachine

JOB, NAME = "abcdefghij", "ain-12345678-abcdefghij-a1"
FILES = {"adapter/weights.safetensors": b"weights" * 9000, "adapter/nested/config.json": b"{}"}


class Place:
    def __init__(self, fake: FakeMachine, root: Path) -> None:
        self.fake, self.root = fake, root
        self.is_gone = False
        self.transfer = RemoteTransfer(root / "attempts", root / "jobs", root / "ssh", self._config)

    def _config(self, cluster: str) -> str:
        if self.is_gone:
            raise Gone(f"{cluster} is gone.")
        return self.fake.machine.config.read_text()

    @property
    def home(self) -> Path:
        return self.root / "jobs" / JOB / "output"

    def export(self, folder: str) -> list[dict[str, Any]]:
        """Write the export on the machine; return what the trainer says of it."""
        for name, data in FILES.items():
            self.fake.write(f"{folder}/{JOB}/output/{name}", data)
        base = f"/somewhere/{folder}/{JOB}/output"
        return [
            {"path": f"{base}/{name}", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in FILES.items()
        ]

    def log(self, *lines: str) -> None:
        path = self.root / "attempts" / NAME / "log.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))

    def verified(self, change: Callable[[dict[str, Any]], dict[str, Any]] = dict) -> str:
        files = [
            change(
                {"path": name.removeprefix("adapter/"), "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            )
            for name, data in FILES.items()
        ]
        line = {"ainfinity": 1, "seq": 9, "kind": "verified", "at": 1.5, "output": f"/x/{JOB}/output/adapter"}
        return json.dumps(line | {"files": files})


@pytest.fixture
def place(fake: FakeMachine, tmp_path: Path) -> Place:
    return Place(fake, tmp_path)


def found_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_export_is_brought_home_from_its_machine(place: Place) -> None:
    files = place.export(".ainfinity/jobs")
    assert place.transfer.verify(NAME, JOB, "", files) == ""
    assert found_in(place.home) == FILES
    calls = place.fake.calls
    place.is_gone = True  # and once it is here, it stays verified
    assert place.transfer.verify(NAME, JOB, "", files) == ""
    assert place.fake.calls == calls


def test_a_break_is_no_fault_of_the_export(place: Place) -> None:
    files = place.export(".ainfinity/jobs")
    for mode, after in (("down", 0), ("cut", 40_000)):
        place.fake.be(mode, after)
        with pytest.raises(ComputeUnreachable):
            place.transfer.verify(NAME, JOB, "", files)
    place.fake.be("")
    assert place.transfer.verify(NAME, JOB, "", files) == ""
    assert found_in(place.home) == FILES


@pytest.mark.parametrize("harm", ["changed", "cut", "removed", "gone"])
def test_what_cannot_be_had_is_told(place: Place, harm: str) -> None:
    files = place.export(".ainfinity/jobs")
    weights = place.fake.home / ".ainfinity/jobs" / JOB / "output" / "adapter/weights.safetensors"
    match harm:
        case "changed":
            weights.write_bytes(b"Weights" + weights.read_bytes()[7:])
        case "cut":
            weights.write_bytes(b"w")
        case "removed":
            weights.unlink()
        case _:
            place.is_gone = True
    problem = place.transfer.verify(NAME, JOB, "", files)
    assert ("weights" in problem) if harm != "gone" else ("machine went" in problem)


def test_a_full_disk_here_is_waited_out(place: Place) -> None:
    files = place.export(".ainfinity/jobs")
    place.home.parent.mkdir(parents=True)
    place.home.write_text("no folder")
    with pytest.raises(ComputeUnreachable):
        place.transfer.verify(NAME, JOB, "", files)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", f"/x/{JOB}/output/../../y", f"/x/{JOB}/checkpoints/y", f"/x/other/output/{JOB}"]
)
def test_a_trainer_names_no_file_outside_its_jobs_output(place: Place, path: str) -> None:
    problem = place.transfer.verify(NAME, JOB, "", [{"path": path, "size": 1, "sha256": "0" * 64}])
    assert "outside" in problem
    assert place.fake.calls == 0


def test_nothing_is_no_export(place: Place) -> None:
    assert place.transfer.verify(NAME, JOB, "", []) != ""


def test_a_storage_that_is_to_be_seen_here_is_read_here(place: Place, tmp_path: Path) -> None:
    files = place.export("shared")
    storage = place.fake.home / "shared"
    assert place.transfer.verify(NAME, JOB, str(storage), files) == ""
    (storage / JOB / "output" / "adapter/nested/config.json").write_text("[]")
    assert "config.json" in place.transfer.verify(NAME, JOB, str(storage), files)
    assert place.fake.calls == 0


@pytest.mark.parametrize("storage", ["s3://bucket/folder", "/not/here"])
def test_a_storage_elsewhere_is_read_back_by_the_machine(place: Place, storage: str) -> None:
    files = place.export(".ainfinity/jobs")
    place.log("text", place.verified(), "more text")
    assert place.transfer.verify(NAME, JOB, storage, files) == ""
    place.log(place.verified(), place.verified(lambda entry: entry | {"size": entry["size"] - 1}))
    assert "does not give back" in place.transfer.verify(NAME, JOB, storage, files)
    assert place.fake.calls == 0


def test_without_its_word_the_machine_is_asked(place: Place) -> None:
    files = place.export(".ainfinity/storage")
    place.log("text", '{"ainfinity":1,"seq":9,"kind":"verified","at":1,"files":3}')
    assert place.transfer.verify(NAME, JOB, "s3://bucket", files) == ""
    assert place.fake.calls == 1
    place.is_gone = True
    assert "machine went" in place.transfer.verify(NAME, JOB, "s3://bucket", files)


@pytest.mark.parametrize(("deadline", "text"), [(1_760_000_000.7, "1760000000"), (None, "none")])
@pytest.mark.parametrize("storage", ["", "s3://bucket"])
def test_every_node_is_told_a_new_deadline(place: Place, storage: str, deadline: float | None, text: str) -> None:
    Records(place.root / "attempts").write(Record(NAME, "cluster", JOB, NAME, storage=storage))
    place.transfer.extend(NAME, NAME, deadline)
    where = f".ainfinity/storage/{JOB}/{NAME}.deadline" if storage else f".ainfinity/attempts/{NAME}/deadline"
    for node in ("node", "node-worker1"):
        assert (place.fake.root / f"home-{node}" / where).read_text() == f"{text}\n"
    place.is_gone = True
    with pytest.raises(ComputeUnreachable):
        place.transfer.extend(NAME, NAME, deadline)


def test_paths_are_taken_from_the_jobs_own_folder() -> None:
    assert inside_job(f"/a/{JOB}/output/{JOB}/output/x", JOB, "output") == f"{JOB}/output/x"
    assert inside_job(f"/a/{JOB}/checkpoints/step-1", JOB, "checkpoints") == "step-1"

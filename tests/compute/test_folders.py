"""Folders that cannot be written and disks that are full: told plainly before, survived after."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ainfinity.compute import folder as folders
from ainfinity.compute import machine
from ainfinity.compute.folder import AttemptFolder, create_once, read_record, write_record
from ainfinity.core.exceptions import ComputeUnreachable, FolderUnwritable
from ainfinity.domain.observation import Phase
from tests.compute.place import NAME, Place


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a full disk cannot be tried here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 512)
    assert shutil.disk_usage(disk).free == 0


def test_a_folder_that_cannot_be_made_is_named(place: Place) -> None:
    place.data = place.root / "data"
    place.data.write_text("a file where the folder should be")
    compute = place.backend()
    with pytest.raises(FolderUnwritable) as caught:
        compute.launch(place.request())
    assert str(place.data) in caught.value.message
    assert "AINFINITY_DATA_DIR" in caught.value.hint


def test_an_output_folder_that_cannot_be_written_is_named(place: Place) -> None:
    output = place.root / "output"
    output.mkdir()
    with read_only(output):
        compute = place.backend()
        with pytest.raises(FolderUnwritable, match=str(output)):
            compute.launch(place.request(output_dir=str(output)))
        assert compute.observe_all() == {}
    compute.launch(place.request(output_dir=str(output)))
    place.started()


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Make a folder read-only, for root too."""
    if os.geteuid():
        path.chmod(0o500)
        yield
        path.chmod(0o700)
        return
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(path)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"root cannot be refused here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_nearly_full_disk_is_refused_beforehand(place: Place, small_disk: Path) -> None:
    place.data = small_disk / "data"
    compute = place.backend()
    with pytest.raises(FolderUnwritable, match="MiB left; an attempt needs"):
        compute.launch(place.request())
    assert compute.observe_all() == {}


def test_a_full_disk_is_named_and_nothing_is_started(
    place: Place, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "MIN_FREE", 0)
    place.data = small_disk / "data"
    compute = place.backend()
    fill(small_disk)
    with pytest.raises(FolderUnwritable, match="is full"):
        compute.launch(place.request())
    assert compute.observe_all() == {}
    with pytest.raises(ComputeUnreachable):
        compute.stop("another")
    (small_disk / "filler").unlink()
    compute.launch(place.request())
    place.started()


def test_the_end_is_recorded_on_a_disk_that_became_full(
    place: Place, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "MIN_FREE", 0)
    place.data = small_disk / "data"
    compute = place.backend()
    compute.launch(place.request("ends"))
    compute.launch(place.request("stopped", recipe={"ranks": 1}))
    place.started("ends")
    place.started("stopped")
    fill(small_disk)
    place.finish(4, name="ends")
    assert place.until_over(compute, "ends").exit_code == 4
    compute.stop("stopped")
    seen = place.until_over(compute, "stopped")
    assert seen.phase == Phase.EXITED
    assert place.alive("stopped") == []
    for name in ("ends", "stopped"):
        compute.release(name)
    assert compute.observe_all() == {}


def test_a_folder_that_cannot_be_read_says_nothing_about_attempts(place: Place) -> None:
    compute = place.backend()
    compute.launch(place.request())
    place.started()
    index = place.settings.attempts_dir / "live"
    index.rename(index.with_name("aside"))
    index.write_text("not a folder")
    with pytest.raises(ComputeUnreachable, match="cannot be used"):
        compute.observe_all()


def test_a_record_is_created_by_exactly_one(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ainfinity.compute.folder import create_once\n"
        "print(sum(create_once(Path(sys.argv[1]) / str(i), {'by': sys.argv[2]}) for i in range(200)))"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)], stdout=subprocess.PIPE) for n in range(3)
    ]
    won = [int(racer.communicate(timeout=60)[0]) for racer in racers]
    assert sum(won) == 200
    assert all(read_record(tmp_path / str(i)) for i in range(200))
    assert len(list(tmp_path.iterdir())) == 200, "nothing is left aside"


def test_records(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    assert read_record(path) is None
    assert create_once(path, {"a": 1})
    assert not create_once(path, {"a": 2})
    assert read_record(path) == {"a": 1}
    write_record(path, {"a": 3})
    assert read_record(path) == {"a": 3}
    path.write_bytes(b"\0" * 100)
    assert read_record(path) == {}


def test_a_damaged_claim_is_a_claim(place: Place) -> None:
    """Somebody ran this once. What it says is lost, so nobody is believed to run it, and nobody else may."""
    compute = place.backend()
    compute.launch(place.request())
    place.started()
    place.finish()
    place.until_over(compute)
    folder = AttemptFolder(place.folder())
    folder.exit.unlink()
    folder.claim.write_bytes(b"\0\0")
    assert place.until_over(compute).phase == Phase.VANISHED
    compute.launch(place.request())
    compute.stop(NAME)
    assert len(place.notes("starts")) == 1


def test_the_supervisor_tells_when_it_cannot_claim(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = place.backend()
    with monkeypatch.context() as patch:
        patch.setattr("ainfinity.compute.launcher.Launcher._spawn", lambda *_: None)
        compute.launch(place.request())
    with read_only_records(place.folder()):
        done = subprocess.run(
            [sys.executable, "-m", "ainfinity.compute.supervisor", str(place.folder())],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(f"the supervisor of {NAME} cannot work")
    assert "Traceback" not in done.stderr


@contextlib.contextmanager
def read_only_records(path: Path) -> Iterator[None]:
    """Bind the attempt's folder onto itself read-only."""
    if os.geteuid():
        path.chmod(0o500)
        yield
        path.chmod(0o700)
        return
    options = (["--bind"], ["-o", "remount,ro,bind"])
    for option in options:
        mounted = subprocess.run(["mount", *option, str(path), str(path)], capture_output=True, check=False)
        if mounted.returncode:
            pytest.skip(f"root cannot be refused here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_the_reserved_room_is_enough(tmp_path: Path) -> None:
    folder = AttemptFolder(tmp_path)
    assert folder.abandon('é"' * 5000)
    assert folder.exit.stat().st_size <= folders._RESERVED
    record = read_record(folder.exit)
    assert record is not None
    assert record["code"] == 143
    assert record["reason"].startswith('é"')

"""Files come from machines whole or not at all, go on after a break, and land nowhere else."""

from __future__ import annotations

import hashlib
import os
import random
import time
from pathlib import Path

import pytest

from ainfinity.compute.remote import transfer
from ainfinity.compute.remote.ssh import hosts_in, write_config
from ainfinity.compute.remote.transfer import RemoteFile, fetch_files, fetch_folder, hashes, list_files, place_in
from ainfinity.core.exceptions import ComputeUnreachable, DataInvalid, FolderUnwritable, NotFound, Refused
from tests.compute.remote.machine import FakeMachine

NAMES = ["weights.safetensors", 'sub dir/a b\'c "$(touch x)".txt', "-rf", "empty", "ünï.json", "deep/er/est/file"]


def fill(fake: FakeMachine, folder: str = "out") -> dict[str, bytes]:
    chance = random.Random(4)
    files = {name: chance.randbytes(size) for name, size in zip(NAMES, (700_000, 10, 3, 0, 2000, 1), strict=True)}
    for name, data in files.items():
        fake.write(f"{folder}/{name}", data)
    return files


def found_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def remote(name: str, data: bytes) -> RemoteFile:
    return RemoteFile(name, len(data), hashlib.sha256(data).hexdigest())


def test_a_command_keeps_its_words_and_its_exit_code(fake: FakeMachine) -> None:
    ran = fake.machine.run(["printf", "%s|", "a b", "$HOME", "'\"", "", "*"])
    assert (ran.code, ran.output) == (0, b"a b|$HOME|'\"||*|")
    ran = fake.machine.run(["sh", "-c", "echo no >&2; exit 7"])
    assert (ran.code, ran.errors) == (7, "no")
    assert fake.machine.run(["cat"], script="x" * 300_000).output == b"x" * 300_000


def test_a_machine_that_does_not_answer_is_out_of_reach(fake: FakeMachine) -> None:
    fake.be("down")
    with pytest.raises(ComputeUnreachable, match="Connection refused"):
        fake.machine.run(["true"])
    fake.be("silent")
    begun = time.monotonic()
    with pytest.raises(ComputeUnreachable, match="silent"):
        fake.machine.run(["true"], limit=0.3)
    assert time.monotonic() - begun < 60
    with pytest.raises(ComputeUnreachable), fake.machine.stream(["true"], silence=0.2) as stream:
        list(stream.pieces)


def test_a_folder_comes_whole_whatever_its_files_are_called(fake: FakeMachine, tmp_path: Path) -> None:
    files = fill(fake)
    (fake.home / "out" / "link").symlink_to("/etc/passwd")
    seen: list[tuple[int, int]] = []
    paths = fetch_folder(fake.machine, "~/out", tmp_path / "here", lambda came, total: seen.append((came, total)))
    assert found_in(tmp_path / "here") == files
    assert sorted(paths) == sorted(tmp_path / "here" / name for name in NAMES)
    total = sum(map(len, files.values()))
    assert seen[-1] == (total, total)
    assert [came for came, _ in seen] == sorted(came for came, _ in seen)
    assert not (fake.home / "x").exists()


def test_what_is_there_already_is_not_fetched_again(fake: FakeMachine, tmp_path: Path) -> None:
    files = [remote(name, data) for name, data in fill(fake).items()]
    fetch_files(fake.machine, "~/out", files, tmp_path / "here")
    calls, weights = fake.calls, tmp_path / "here" / NAMES[0]
    os.utime(weights, (1, 1))
    fetch_files(fake.machine, "~/out", files, tmp_path / "here")
    assert fake.calls == calls
    (tmp_path / "here" / "ünï.json").write_bytes(b"half")
    fetch_files(fake.machine, "~/out", files, tmp_path / "here")
    assert weights.stat().st_mtime == 1
    assert found_in(tmp_path / "here") == fill(fake)


@pytest.mark.parametrize("after", [1, 65_536, 400_000, 700_001, 700_011])
def test_what_broke_off_is_gone_on_with(fake: FakeMachine, tmp_path: Path, after: int) -> None:
    contents = fill(fake)
    files = [remote(name, data) for name, data in contents.items()]
    fake.be("cut", after)
    with pytest.raises(ComputeUnreachable):
        fetch_files(fake.machine, "~/out", files, tmp_path / "here")
    came = sum(len(data) for data in found_in(tmp_path / "here").values())
    assert came == after
    seen: list[int] = []
    fake.be("")
    fetch_files(fake.machine, "~/out", files, tmp_path / "here", lambda came, _: seen.append(came))
    assert found_in(tmp_path / "here") == contents
    assert seen[0] > 0  # what had come is not sent again


def test_rests_of_another_file_are_thrown_away(fake: FakeMachine, tmp_path: Path) -> None:
    contents = fill(fake)
    here = tmp_path / "here"
    here.mkdir()
    (here / f"{NAMES[0]}.part").write_bytes(b"of another file")
    (here / "-rf.part").write_bytes(b"longer than it")
    (here / "empty.part").symlink_to(tmp_path / "elsewhere")
    fetch_files(fake.machine, "~/out", [remote(name, data) for name, data in contents.items()], here)
    assert found_in(here) == contents
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_is_not_what_was_written_never_takes_its_place(fake: FakeMachine, tmp_path: Path) -> None:
    contents = fill(fake)
    fake.write("out/ünï.json", b"x" * 2000)
    with pytest.raises(DataInvalid, match="ünï"):
        fetch_files(fake.machine, "~/out", [remote(name, data) for name, data in contents.items()], tmp_path / "here")
    assert "ünï.json" not in found_in(tmp_path / "here")
    assert found_in(tmp_path / "here")[NAMES[0]] == contents[NAMES[0]]
    (fake.home / "out" / "ünï.json").unlink()
    with pytest.raises(NotFound, match="ünï"):
        fetch_files(fake.machine, "~/out", [remote("ünï.json", contents["ünï.json"])], tmp_path / "here")


def test_files_are_hashed_where_they_are(fake: FakeMachine) -> None:
    contents = fill(fake)
    assert hashes(fake.machine, "~/out", NAMES) == [remote(name, contents[name]) for name in NAMES]
    assert list_files(fake.machine, "~/out") == sorted(NAMES)
    with pytest.raises(NotFound, match="nothing"):
        hashes(fake.machine, "~/out", [*NAMES, "nothing"])
    with pytest.raises(NotFound):
        list_files(fake.machine, "~/nowhere")


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", "a/./b", "..", "a\0b", "./a"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused):
        place_in(tmp_path / "here", name)


def test_no_link_leads_out_of_the_folder(fake: FakeMachine, tmp_path: Path) -> None:
    here, outside = tmp_path / "here", tmp_path / "outside"
    here.mkdir()
    outside.mkdir()
    (here / "sub").symlink_to(outside)
    (here / "file").symlink_to(outside / "file")
    fake.write("out/sub/a", b"a")
    fake.write("out/file", b"a")
    for name in ("sub/a", "file"):
        with pytest.raises(Refused):
            fetch_files(fake.machine, "~/out", [remote(name, b"a")], here)
    assert list(outside.iterdir()) == []


def test_a_folder_that_cannot_be_written(fake: FakeMachine, tmp_path: Path) -> None:
    contents = fill(fake)
    (tmp_path / "here").write_text("a file")
    with pytest.raises(FolderUnwritable):
        fetch_files(fake.machine, "~/out", [remote("-rf", contents["-rf"])], tmp_path / "here")


def test_many_files_take_few_connections(fake: FakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_TOGETHER", 40)
    contents = {f"{number:03}": bytes([number % 256]) * number for number in range(100)}
    for name, data in contents.items():
        fake.write(f"out/{name}", data)
    fetch_folder(fake.machine, "~/out", tmp_path / "here")
    assert found_in(tmp_path / "here") == contents
    assert fake.calls == 1 + 3 + 3


def test_a_configuration_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    text = 'Host a b\n  IdentityFile ~/.sky/key\n  ProxyCommand ssh -i "~/.k" x~/y\nHost c\n'
    path = write_config(tmp_path / "ssh", "a/../b", text)
    assert path.parent == tmp_path / "ssh"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert "IdentityFile /home/ann/.sky/key" in path.read_text()
    assert '"/home/ann/.k" x~/y' in path.read_text()
    assert hosts_in(text) == ["a", "b", "c"]

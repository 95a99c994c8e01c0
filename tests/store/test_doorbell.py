from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ainfinity.store import doorbell
from ainfinity.store.doorbell import Listener, NullBell, SocketBell, bell_folder


@pytest.fixture(autouse=True)
def temporary_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short one of our own, since pytest's is long and this machine's may be in use."""
    with tempfile.TemporaryDirectory(prefix="b") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture
def bell(path: Path) -> Iterator[SocketBell]:
    made = SocketBell(path)
    yield made
    made.close()


def test_a_ring_is_heard_by_all_once(path: Path, bell: SocketBell) -> None:
    with Listener(path) as one, Listener(path) as two:
        for _ in range(5):
            bell.ring()
        assert one.wait(5.0)
        assert two.wait(5.0)
        assert not one.wait(0.0)
        assert not two.wait(0.01)


def test_other_databases_are_not_disturbed(path: Path, bell: SocketBell) -> None:
    with Listener(path.with_name("other.db")) as other:
        bell.ring()
        assert not other.wait(0.0)


def test_a_link_to_the_database_is_the_same_bell(path: Path, bell: SocketBell) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    with Listener(link) as listener:
        bell.ring()
        assert listener.wait(5.0)


def test_nobody_listens(path: Path, bell: SocketBell) -> None:
    bell.ring()
    with Listener(path):
        pass
    bell.ring()
    assert not list(bell_folder(path).iterdir())


def test_a_sleeping_listener_never_blocks_the_bell(path: Path, bell: SocketBell) -> None:
    with Listener(path) as listener:
        began = time.monotonic()
        for _ in range(5000):
            bell.ring()
        assert time.monotonic() - began < 10.0
        assert listener.wait(5.0)
        assert not listener.wait(0.0)


def test_a_dead_listener_is_cleared_away(path: Path, bell: SocketBell) -> None:
    script = textwrap.dedent(
        """
        import os, sys, tempfile
        from pathlib import Path
        from ainfinity.store.doorbell import Listener
        tempfile.tempdir = sys.argv[2]
        Listener(Path(sys.argv[1]))
        os._exit(9)
        """
    )
    subprocess.run([sys.executable, "-c", script, str(path), tempfile.gettempdir()], check=False)
    folder = bell_folder(path)
    assert len(list(folder.iterdir())) == 1
    with Listener(path) as listener:
        bell.ring()
        assert listener.wait(5.0)
        assert len(list(folder.iterdir())) == 1


def test_it_rings_in_another_process(path: Path, bell: SocketBell) -> None:
    script = textwrap.dedent(
        """
        import sys, tempfile
        from pathlib import Path
        from ainfinity.store.doorbell import Listener
        tempfile.tempdir = sys.argv[2]
        with Listener(Path(sys.argv[1])) as listener:
            print("ready", flush=True)
            print(listener.wait(60.0), flush=True)
        """
    )
    command = [sys.executable, "-c", script, str(path), tempfile.gettempdir()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
        began = time.monotonic()
        bell.ring()
        assert child.stdout.readline() == "True\n"
        assert time.monotonic() - began < 30.0


@pytest.mark.parametrize("shape", ["link", "file", "shared", "foreign"])
def test_a_folder_that_others_could_write_is_refused(path: Path, tmp_path: Path, bell: SocketBell, shape: str) -> None:
    folder = bell_folder(path)
    aside = tmp_path / "aside"
    aside.mkdir(mode=0o700)
    match shape:
        case "link":
            folder.symlink_to(aside)
        case "file":
            folder.touch()
        case "shared":
            folder.mkdir()
            folder.chmod(0o770)
        case _:
            if os.getuid() != 0:
                pytest.skip("only root can give a folder away")
            folder.mkdir(mode=0o700)
            os.chown(folder, 65534, 65534)
    with Listener(path) as listener:
        assert listener.fileno() == -1
        bell.ring()
        began = time.monotonic()
        assert not listener.wait(0.02)
        assert time.monotonic() - began >= 0.02
        assert not asyncio.run(listener.wait_async(0.01))
    assert not list(aside.iterdir())
    if folder.is_dir() and not folder.is_symlink():
        assert not list(folder.iterdir())


def test_without_a_socket_no_wait_is_longer_than_a_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "POLL", 0.05)
    with Listener(None) as listener:
        began = time.monotonic()
        assert not listener.wait(60.0)
        assert not asyncio.run(listener.wait_async(60.0))
        assert time.monotonic() - began < 30.0


def test_a_null_bell_rings_nowhere() -> None:
    NullBell().ring()


def test_a_long_temporary_folder_still_gives_a_short_path(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS ends a socket's path at 104 bytes."""
    monkeypatch.setattr(tempfile, "tempdir", "/" + "long/" * 40)
    folder = bell_folder(path)
    assert len(os.fsencode(folder)) + len("/4194304-12345678.sock") < 104
    with Listener(path) as listener:
        assert listener.fileno() >= 0
        SocketBell(path).ring()
        assert listener.wait(5.0)
    folder.rmdir()


def test_a_cleaned_temporary_folder_is_made_anew(path: Path, bell: SocketBell) -> None:
    with Listener(path) as listener:
        folder = bell_folder(path)
        for socket in folder.iterdir():
            socket.unlink()
        folder.rmdir()
        bell.ring()
        assert not listener.wait(0.0)
        bell.ring()
        assert listener.wait(5.0)


async def test_it_wakes_an_event_loop(path: Path, bell: SocketBell) -> None:
    with Listener(path) as listener:
        assert not await listener.wait_async(0.01)
        waiting = asyncio.create_task(listener.wait_async(30.0))
        await asyncio.sleep(0)
        bell.ring()
        bell.ring()
        assert await waiting
        assert not await listener.wait_async(0.01)


async def test_a_cancelled_wait_leaves_the_listener_usable(path: Path, bell: SocketBell) -> None:
    with Listener(path) as listener:
        waiting = asyncio.create_task(listener.wait_async(30.0))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        bell.ring()
        assert await listener.wait_async(5.0)
        bell.ring()
        assert listener.wait(5.0)

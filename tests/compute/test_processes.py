"""Who a process is, what belongs to an attempt, and in which order it is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ainfinity.compute import processes
from ainfinity.compute.processes import Ending, Identity, Process, identify, is_alive, list_processes, members_of, send
from tests.compute.place import wait_for

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(params=["proc", "psutil"])
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to ask for processes, on any system that has both."""
    if request.param == "proc" and sys.platform != "linux":
        pytest.skip("only Linux has /proc")
    monkeypatch.setattr(processes, "_ON_LINUX", request.param == "proc")
    return str(request.param)


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def call(argv: list[str] = SLEEP, **environment: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(argv, env=os.environ | environment))
        return started[-1]

    yield call
    for child in started:
        child.kill()
        child.wait()


@pytest.mark.usefixtures("source")
def test_identity(start: Start) -> None:
    one, other = start(), start()
    identity = identify(one.pid)
    assert identity is not None
    assert identity == identify(one.pid) != identify(other.pid)
    assert is_alive(identity)
    assert not is_alive(Identity(one.pid, "another start"))
    one.kill()
    # Not waited for: a zombie holds its pid and is not alive.
    wait_for(lambda: not is_alive(identity))
    assert os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    assert identify(0) is None
    assert identify(-1) is None


@pytest.mark.usefixtures("source")
def test_marked_processes_are_found(start: Start) -> None:
    marked = start(AINFINITY_ATTEMPT_FOLDER="some-name")
    plain = start()

    def found() -> dict[int, Process]:
        return {process.identity.pid: process for process in list_processes()}

    wait_for(lambda: found().get(marked.pid, Process(Identity(0, ""), 0, "")).mark)
    seen = found()
    assert seen[marked.pid].mark == "some-name"
    assert seen[marked.pid].parent == os.getpid()
    assert seen[plain.pid].mark == ""
    assert os.getpid() not in seen
    members = [process.identity.pid for process in members_of("some-name", seen.values())]
    assert members == [marked.pid]


@pytest.mark.skipif(sys.platform != "linux", reason="a name that looks like the end of the name is read from /proc")
def test_a_name_with_parentheses_and_spaces_is_read(start: Start, tmp_path: Path) -> None:
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    child = start([str(program), "600"])
    found = wait_for(lambda: processes._read_proc(child.pid))
    assert found[1] == os.getpid()


def make(pid: int, parent: int, mark: str = "") -> Process:
    return Process(Identity(pid, f"start-{pid}"), parent, mark)


def test_members_are_the_marked_the_descendants_and_theirs() -> None:
    listed = [
        make(10, 1),  # the root, not a member
        make(11, 10),  # its child
        make(12, 11),  # and grandchild
        make(20, 1, "name"),  # marked, elsewhere
        make(21, 20),  # its child, which lost the mark
        make(30, 1, "name2"),
        make(31, 1),
    ]
    assert sorted(p.identity.pid for p in members_of("name", listed, root=10)) == [11, 12, 20, 21]
    assert sorted(p.identity.pid for p in members_of("name", listed)) == [20, 21]
    assert members_of("other", listed) == []


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, signal.Signals]]:
    calls: list[tuple[int, signal.Signals]] = []
    monkeypatch.setattr(processes, "send", lambda identity, number: calls.append((identity.pid, number)))
    return calls


def test_roots_are_told_once_and_all_are_killed_after_the_grace(sent: list[tuple[int, signal.Signals]]) -> None:
    ending = Ending(began=100.0, grace=5.0)
    root, rank, deep = make(1000, 1), make(1001, 1000), make(1002, 1001)
    ending.step([root, rank, deep], 100.0)
    ending.step([root, rank, deep], 101.0)
    assert sent == [(1000, signal.SIGTERM)]
    # The root is gone: who is left and was never told is a root now.
    ending.step([make(1001, 1), deep], 102.0)
    assert sent[1:] == [(1001, signal.SIGTERM)]
    ending.step([make(1001, 1), deep], 105.0)
    assert sent[2:] == [(1001, signal.SIGKILL), (1002, signal.SIGKILL)]


@pytest.mark.parametrize("pidfd", [True, False])
def test_a_signal_reaches_exactly_the_process_meant(start: Start, monkeypatch: pytest.MonkeyPatch, pidfd: bool) -> None:
    if not pidfd:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    child = start()
    identity = identify(child.pid)
    assert identity is not None
    assert not send(Identity(child.pid, "an earlier process with this pid"), signal.SIGKILL)
    assert child.poll() is None
    assert send(identity, signal.SIGTERM)
    assert child.wait() == -signal.SIGTERM
    assert not send(identity, signal.SIGTERM)

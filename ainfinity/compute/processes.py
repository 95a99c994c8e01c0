"""Processes of an attempt: who they are, which are left, and how they are ended.

A process is known by its pid and its start time, because pids are used again. What belongs to an attempt is found by
the mark in its environment and by descent, never by process group: torchrun starts each rank in a session of its own.
Linux is read from /proc; elsewhere psutil answers.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

#: The mark in the environment of every process of an attempt: its folder. Its name alone would not do, since another
#: installation, or a test beside this one, may use the same.
MARK = "AINFINITY_ATTEMPT_FOLDER"

_PROC = Path("/proc")
_ON_LINUX = sys.platform == "linux"


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, and never another one that got its pid later. `start` is opaque and unique over reboots."""

    pid: int
    start: str


@dataclass(frozen=True, slots=True)
class Process:
    """A live process (no zombie): who it is, its parent's pid, and the mark in its environment, or ""."""

    identity: Identity
    parent: int
    mark: str


@cache
def boot_id() -> str:
    """Return a text that changes with each boot of this machine; "" where the system offers none."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@cache
def machine_id() -> str:
    """Return a text that stays with this machine; "" where the system offers none."""
    try:
        return Path("/etc/machine-id").read_text().strip()
    except OSError:
        return ""


def identify(pid: int) -> Identity | None:
    """Return the identity of the live process `pid`, or None where there is none; a zombie is not alive."""
    if pid <= 0:
        return None
    found = _read_proc(pid) if _ON_LINUX else _read_psutil(pid)
    return found and found[0]


def is_alive(identity: Identity) -> bool:
    """Whether exactly this process is alive."""
    return identify(identity.pid) == identity


def list_processes() -> list[Process]:
    """Return every live process but the calling one."""
    return [process for process in _scan() if process.identity.pid != os.getpid()]


def members_of(mark: str, processes: Collection[Process], root: int = 0) -> list[Process]:
    """Return those of `processes` that belong to an attempt.

    These are the ones that carry its mark, the descendants of process `root`, and all descendants of these: a process
    may have cleared its environment. `root` itself is not among them.
    """
    children: dict[int, list[Process]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    todo = [process for process in processes if process.mark == mark or (root and process.parent == root)]
    found: dict[int, Process] = {}
    while todo:
        process = todo.pop()
        pid = process.identity.pid
        if pid not in found and pid != root:
            found[pid] = process
            todo += children.get(pid, ())
    return list(found.values())


def send(identity: Identity, number: signal.Signals) -> bool:
    """Send a signal to exactly this process; return whether it was still there."""
    pidfd_open: Callable[[int], int] | None = getattr(os, "pidfd_open", None)
    try:
        if pidfd_open is None:
            if not is_alive(identity):
                return False
            os.kill(identity.pid, number)
            return True
        handle = pidfd_open(identity.pid)
        try:
            # Looked at after opening: from here on the handle cannot come to mean another process.
            if not is_alive(identity):
                return False
            signal.pidfd_send_signal(handle, number)
            return True
        finally:
            os.close(handle)
    except ProcessLookupError:
        return False
    except PermissionError:  # It became another user's. It is still there, and that is what observers will say.
        return True


@dataclass(slots=True)
class Ending:
    """Ends processes step by step: SIGTERM, and SIGKILL once `grace` seconds have gone by since `began`.

    Only roots, those whose parent is not to be ended too, get SIGTERM, and each of them once. torchrun hands the
    signal on to its ranks, and a rank that is told twice exits without saving a checkpoint.
    """

    began: float
    grace: float
    told: set[Identity] = field(default_factory=set[Identity])

    def step(self, alive: Sequence[Process], now: float) -> None:
        """Send what is due to the processes that are left. `now` is on the same clock as `began`."""
        if now - self.began >= self.grace:
            for process in alive:
                send(process.identity, signal.SIGKILL)
            return
        pids = {process.identity.pid for process in alive}
        for process in alive:
            if process.parent not in pids and process.identity not in self.told:
                self.told.add(process.identity)
                send(process.identity, signal.SIGTERM)


def _read_proc(pid: int) -> tuple[Identity, int] | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The name in parentheses may hold anything, spaces and parentheses too.
    state, parent, *rest = stat[stat.rindex(b")") + 2 :].split()
    if state in (b"Z", b"X"):
        return None
    return Identity(pid, f"{boot_id()}:{rest[17].decode()}"), int(parent)


def _read_psutil(pid: int) -> tuple[Identity, int] | None:
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return Identity(pid, f"{process.create_time():.3f}"), process.ppid()
    except psutil.Error:
        return None


def _scan() -> Iterator[Process]:
    if _ON_LINUX:
        pids = [int(entry) for entry in os.listdir(_PROC) if entry.isdigit()]
    else:
        import psutil

        pids = psutil.pids()
    for pid in pids:
        mark = _mark(pid)
        found = _read_proc(pid) if _ON_LINUX else _read_psutil(pid)
        if found is not None:
            yield Process(*found, mark=mark)


def _mark(pid: int) -> str:
    """Return the mark in the environment of `pid`, or "" where there is none or it must not be read."""
    if not _ON_LINUX:
        import psutil

        try:
            return psutil.Process(pid).environ().get(MARK, "")
        except (psutil.Error, OSError):
            return ""
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return ""
    prefix = MARK.encode() + b"="
    for entry in environment.split(b"\0"):
        if entry.startswith(prefix):
            return entry[len(prefix) :].decode(errors="replace")
    return ""

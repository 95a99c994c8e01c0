"""First paint of the terminal UI against an empty Textual app, from spawn to the last bytes of the frame."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path

from scripts.bench.commands import environment
from scripts.bench.measure import Figure, at_most, by_turns, thread_cpu
from scripts.bench.seed import make_store

_EMPTY = '''
from textual.app import App
from textual.widgets import Static


class Empty(App[None]):
    """A blank screen with one word, by which its first frame is known."""

    def compose(self):
        yield Static("painted")


Empty().run()
'''
#: Silence after which a frame counts as whole, in seconds.
_GAP = 0.008


@dataclass
class Terminal:
    """A process on a terminal of 80×24 that nobody types at."""

    pid: int
    fd: int
    began: float

    @classmethod
    def start(cls, argv: list[str], env: dict[str, str]) -> Terminal:
        """Spawn the command."""
        began = time.perf_counter()
        pid, fd = pty.fork()
        if pid == 0:
            try:
                fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
                os.execvpe(argv[0], argv, env)
            finally:
                os._exit(127)
        return cls(pid, fd, began)

    def wait_for(self, text: bytes, patience: float = 60.0) -> tuple[float, float]:
        """Read until `text` was painted and the frame is whole.

        Returns CPU and wall milliseconds from the spawn to the frame's last bytes; what comes after does not count.
        """
        seen, last, cpu = b"", self.began, 0.0
        while time.perf_counter() - self.began < patience:
            ready, _, _ = select.select([self.fd], [], [], _GAP)
            if ready:
                try:
                    seen += os.read(self.fd, 65536)
                except OSError:
                    break
                last = time.perf_counter()
                cpu = thread_cpu(self.pid)
            elif text in seen:
                return 1000 * cpu, 1000 * (last - self.began)
        raise RuntimeError(f"{text!r} was not painted; the screen got {seen[-3000:]!r}")

    def drain(self, seconds: float) -> None:
        """Read and drop what is painted for a while."""
        until = time.perf_counter() + seconds
        while (left := until - time.perf_counter()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                os.read(self.fd, 65536)

    def end(self) -> None:
        """Kill the process."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


def measure(folder: Path, rounds: int = 9, jobs: int = 10_000, idle: float = 10.0) -> list[Figure]:
    """Medians over `rounds` starts each, and the CPU share of a UI at which nobody looks."""
    data = folder / "paint"
    make_store(data / "ainfinity.db", jobs).close()
    empty, ours = folder / "empty.py", folder / "ours.py"
    empty.write_text(_EMPTY)
    ours.write_text("from ainfinity.cli.main import main\nmain()\n")
    env = environment(data, folder)
    walls: dict[Path, list[float]] = {empty: [], ours: []}

    def paint(script: Path, text: bytes) -> float:
        terminal = Terminal.start([sys.executable, str(script)], env)
        try:
            cpu, wall = terminal.wait_for(text)
        finally:
            terminal.end()
        walls[script].append(wall)
        return cpu

    newest = f"tune-{jobs - 1:05}".encode()
    control, cpu = by_turns(rounds, lambda: paint(empty, b"painted"), lambda: paint(ours, newest))
    wall_control, wall = (sorted(found[1:])[len(found[1:]) // 2] for found in walls.values())
    return [
        at_most(f"first paint, {jobs} jobs, CPU", cpu, "CPU ms", 1.2, control),
        at_most(f"first paint, {jobs} jobs, wall", wall, "ms", 1.2, wall_control),
        at_most("idle terminal UI", _idle_share([sys.executable, str(ours)], env, newest, idle), "% CPU", 0.5),
    ]


def _idle_share(argv: list[str], env: dict[str, str], text: bytes, seconds: float) -> float:
    terminal = Terminal.start(argv, env)
    try:
        terminal.wait_for(text)
        terminal.drain(3.0)  # what the start still has to do
        before = thread_cpu(terminal.pid)
        terminal.drain(seconds)
        return 100 * (thread_cpu(terminal.pid) - before) / seconds
    finally:
        terminal.end()

"""What a figure is, and how processes are measured: CPU time, medians, subject and control by turns in the same run."""

from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure. `goal` bounds the ratio to the control where there is one, else the value."""

    name: str
    value: float
    unit: str
    goal: str
    control: float | None = None
    ratio: float | None = None
    ok: bool


def at_most(name: str, value: float, unit: str, limit: float, control: float | None = None) -> Figure:
    """A figure that is good when it, or its ratio to the control, is at most `limit`."""
    ratio = None if control is None else value / control
    judged = value if ratio is None else ratio
    goal = f"≤ {limit:g} {unit}" if ratio is None else f"≤ {limit:g} ×"
    return Figure(name=name, value=value, unit=unit, goal=goal, control=control, ratio=ratio, ok=judged <= limit)


def at_least(name: str, value: float, unit: str, limit: float, control: float) -> Figure:
    """A figure that is good when its ratio to the control is at least `limit`."""
    ratio = value / control
    goal = f"≥ {limit:g} ×"
    return Figure(name=name, value=value, unit=unit, goal=goal, control=control, ratio=ratio, ok=ratio >= limit)


def cpu_of(argv: Sequence[str], env: Mapping[str, str]) -> float:
    """Run a command without a terminal and return the CPU milliseconds, user and system, that it took."""
    null = subprocess.DEVNULL
    process = subprocess.Popen(argv, env=env, stdin=null, stdout=null, stderr=subprocess.PIPE, start_new_session=True)
    with process:
        assert process.stderr is not None
        complaints = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} exited {process.returncode}: {complaints.decode()[-2000:]}")
    return 1000 * (usage.ru_utime + usage.ru_stime)


def by_turns(rounds: int, *subjects: Callable[[], float]) -> list[float]:
    """Return each subject's median over `rounds`, after one unmeasured round that fills the caches."""
    for subject in subjects:
        subject()
    taken: list[list[float]] = [[] for _ in subjects]
    for _ in range(rounds):
        for values, subject in zip(taken, subjects, strict=True):
            values.append(subject())
    return [statistics.median(values) for values in taken]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the values lie."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def thread_cpu(pid: int) -> float:
    """Return the CPU seconds of a process so far, to the microsecond where Linux tells, else to the clock tick."""
    tasks = Path(f"/proc/{pid}/task")
    if not tasks.is_dir():
        import psutil

        times = psutil.Process(pid).cpu_times()
        return times.user + times.system
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9

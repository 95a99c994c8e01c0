"""The top line of the jobs screen: how many jobs are in which state, and whether a worker is alive. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from ainfinity.schema.views import WorkerStatus
from tui import format as fmt
from tui.looks import LOOKS, look_of
from tui.text import Line, line_width

_NAME = " ainfinity "


def status_line(
    counts: Mapping[str, int], *, visible: int, filtered: bool, loading: bool, worker: WorkerStatus | None, cells: int
) -> Line:
    """Return the title: as many counts as fit between the name and the worker."""
    total = sum(counts.values())
    line: Line = [(_NAME, "key")]
    jobs = fmt.plural(total, "job") if not filtered else f"{visible:,} of {fmt.plural(total, 'job')}"
    if loading:  # what is known are the first rows only, and counting them would tell nothing
        counts, jobs = dict[str, int](), "reading …"
    line.append((f" {jobs}", "bold"))
    right = worker_line(worker)
    room = cells - line_width(line) - line_width(right) - 1
    line += _fitting(_groups(counts), room)
    gap = cells - line_width(line) - line_width(right) - 1
    return [*line, (" " * gap, "text"), *right, (" ", "text")] if gap > 0 else line


def worker_line(worker: WorkerStatus | None) -> Line:
    """Say whether a worker is alive; a worker without jobs goes home, which is as it should be."""
    if worker is None:
        return []
    if worker.alive:
        return [("●", "good"), (" worker", "dim")]
    if worker.live_jobs:
        return [("✗ no worker", "bad"), (" w starts one", "dim")]
    return [("○", "dim"), (" worker idle", "dim")]


def _fitting(groups: list[_Group], room: int) -> Line:
    """Say as many groups in words as there is room for, the rest in figures, and leave out what still has no room."""
    while groups:
        for worded in range(len(groups), -1, -1):
            parts = [group.words if index < worded else group.figures for index, group in enumerate(groups)]
            if sum(map(line_width, parts)) <= room:
                return [run for part in parts for run in part]
        groups = groups[:-1]
    return []


class _Group(NamedTuple):
    """States that are counted together, in words and in figures alone."""

    words: Line
    figures: Line


def _groups(counts: Mapping[str, int]) -> list[_Group]:
    """Return the groups of states that have jobs, in the order of the table."""
    totals: Counter[str] = Counter()
    for state, number in counts.items():
        totals[look_of(state).group] += number
    looks = {look.group: look for look in LOOKS.values()} | {"other": look_of("")}
    found: list[_Group] = []
    for group, look in looks.items():
        if totals[group] > 0:
            figures: Line = [("  ", "text"), (look.symbol, look.tone), (f" {totals[group]:,}", "text")]
            found.append(_Group([*figures, (f" {group}", "text")], figures))
    return found

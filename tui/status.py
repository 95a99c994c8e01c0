"""The top line of the jobs screen: how many jobs are in which state, and whether a worker is alive. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

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
    line.append((f" {jobs}{' …' if loading else ''}", "bold"))
    right = worker_line(worker)
    for symbol, text, tone in _groups(counts):
        part: Line = [("  ", "text"), (symbol, tone), (f" {text}", "text")]
        if line_width(line) + line_width(part) + line_width(right) + 2 > cells:
            break
        line += part
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


def _groups(counts: Mapping[str, int]) -> list[tuple[str, str, str]]:
    """Symbol, count and word, and tone of each group of states that has jobs, in the order of the table."""
    groups: Counter[str] = Counter()
    for state, number in counts.items():
        groups[look_of(state).group] += number
    looks = {look.group: look for look in LOOKS.values()} | {"other": look_of("")}
    return [
        (look.symbol, f"{groups[group]:,} {group}", look.tone) for group, look in looks.items() if groups[group] > 0
    ]

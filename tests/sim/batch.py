"""Many schedules in several processes."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.sim.simulation import Switches, ground, memory_folder, play

#: Schedules that one process plays on one database file.
_CHUNK = 50


@dataclass
class Report:
    """What came of a number of schedules."""

    played: int = 0
    seconds: float = 0.0
    broken: dict[int, str] = field(default_factory=dict[int, str])
    happened: Counter[str] = field(default_factory=Counter[str])

    def summary(self) -> str:
        """What happened, and for each broken schedule the command that replays it."""
        kills = sum(count for name, count in self.happened.items() if name.startswith("killed at "))
        pauses = sum(count for name, count in self.happened.items() if name.startswith("paused at "))
        told = {name: self.happened[name] for name in ("job.submitted", "attempt.intended", "attempt.adopted")}
        lines = [
            f"{self.played} schedules in {self.seconds:.0f} s: {told['job.submitted']} jobs,"
            f" {told['attempt.intended']} intents, {told['attempt.adopted']} adopted, {kills} kills, {pauses} pauses,"
            f" {self.happened['lease lost']} leases lost; {len(self.broken)} broken"
        ]
        for seed, broke in sorted(self.broken.items()):
            lines.append(f"seed {seed}: {broke}\n  replay: make sim SEED={seed}")
        return "\n".join(lines)


def _play_chunk(chunk: tuple[Path, int, int, int, Switches]) -> tuple[int, dict[int, str], Counter[str]]:
    folder, first, count, enough, switches = chunk
    broken: dict[int, str] = {}
    happened: Counter[str] = Counter()
    with ground(folder) as place:
        for seed in range(first, first + count):
            outcome = play(place, seed, switches)
            happened += outcome.happened
            if outcome.broke:
                broken[seed] = outcome.broke
                if len(broken) >= enough:
                    return seed - first + 1, broken, happened
    return count, broken, happened


def play_many(first: int, count: int, jobs: int, switches: Switches | None = None, enough: int = 5) -> Report:
    """Play `count` schedules from seed `first` on; stop early once `enough` of them broke."""
    report, began = Report(), time.monotonic()
    # Processes are ended in mid-schedule once enough broke, so the folder is not theirs to remove.
    with memory_folder() as folder:
        chunks = [
            (folder, start, min(_CHUNK, first + count - start), enough, switches or Switches())
            for start in range(first, first + count, _CHUNK)
        ]
        with multiprocessing.get_context("spawn").Pool(min(jobs, len(chunks))) as pool:
            for played, broken, happened in pool.imap_unordered(_play_chunk, chunks):
                report.played += played
                report.broken |= broken
                report.happened += happened
                if len(report.broken) >= enough:
                    break
            pool.terminate()
            pool.join()
    report.seconds = time.monotonic() - began
    return report

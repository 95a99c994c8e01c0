"""Where what a job left can be had now.

A trainer tells the paths of its machine. What counts of them is the part below the job's own folder: nothing that a
trainer says leads anywhere else. The same part is looked for here, in the job's storage, and on its machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ainfinity.compute.outputs import inside_job
from ainfinity.schema.states import ATTEMPT_TERMINAL
from ainfinity.schema.views import ArtifactRow, AttemptRow

_FOLDERS: Final = {"adapter": "output", "model": "output", "checkpoint": "checkpoints"}


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """One artifact: a `path` on this computer, or the `url` of a bucket, or a path on the machine of an attempt."""

    row: ArtifactRow
    path: Path | None = None
    url: str = ""
    machine: str = ""

    @property
    def told(self) -> ArtifactRow:
        """The artifact with its place as people are shown it."""
        match self:
            case Whereabouts(path=Path() as path):
                return replace(self.row, path=str(path))
            case Whereabouts(url=str(url)) if url:
                return replace(self.row, path=url)
            case Whereabouts(machine=str(machine)) if machine:
                return replace(self.row, path=f"{machine}:{self.row.path}")
            case _:
                return self.row


class Finder:
    """Finds what one job left. `home` is the job's folder here."""

    def __init__(self, job_id: str, home: Path, spec: Mapping[str, Any], attempts: Mapping[int, AttemptRow]) -> None:
        self._job_id = job_id
        self._home = home
        resources: Mapping[str, Any] = spec.get("resources", {})
        self._storage: str = (resources.get("storage") or "").rstrip("/")
        self._is_local = resources.get("infra", "local") == "local"
        self._attempts = attempts

    def find(self, row: ArtifactRow, now: float) -> Whereabouts | None:
        """Return where an export or a checkpoint is; None where it is gone, or was never the job's."""
        folder = _FOLDERS.get(row.kind)
        if folder is None:
            return None
        try:
            inside = f"{folder}/{inside_job(row.path, self._job_id, folder)}"
        except ValueError:
            return None
        if (here := self._home / inside).exists():
            return Whereabouts(row, here)
        if "://" in self._storage:
            return Whereabouts(row, url=f"{self._storage}/{self._job_id}/{inside}")
        if self._storage and (shared := Path(self._storage) / self._job_id / inside).exists():
            return Whereabouts(row, shared)
        attempt = self._attempts.get(row.attempt)
        if not self._is_local and attempt is not None and _has_machine(attempt, now):
            return Whereabouts(row, machine=attempt.name)
        return None


def tell_places(
    rows: Iterable[ArtifactRow],
    job_id: str,
    home: Path,
    spec: Mapping[str, Any],
    attempts: Iterable[AttemptRow],
    now: float,
) -> tuple[ArtifactRow, ...]:
    """Return artifacts with where they are now; what is gone keeps the path that its trainer told."""
    finder = Finder(job_id, home, spec, {row.number: row for row in attempts})
    return tuple(row if (place := finder.find(row, now)) is None else place.told for row in rows)


def _has_machine(attempt: AttemptRow, now: float) -> bool:
    return attempt.state not in ATTEMPT_TERMINAL or (attempt.keep_until or 0.0) > now

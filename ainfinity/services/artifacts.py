"""What jobs left behind, and bringing it to a folder, checked, from wherever it is."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from ainfinity.compute.remote.ssh import Machine
from ainfinity.compute.remote.transfer import RemoteFile, fetch_files, fetch_folder
from ainfinity.core.exceptions import NotFound, UsageError, WrongState
from ainfinity.schema.views import ArtifactRow
from ainfinity.services.copying import Progress, copy_bucket, copy_file
from ainfinity.services.merging import merge
from ainfinity.services.whereabouts import Finder, Whereabouts
from ainfinity.store import jobs
from ainfinity.store.store import Store

_KINDS: Final = ("adapter", "model", "merged", "checkpoint", "logs")
#: The way to the machine of an attempt. Errors: ComputeUnreachable, NotFound.
Reach = Callable[[str], Machine]


class ArtifactService:
    """What jobs left behind. `reach` leads to machines elsewhere; without it they are out of reach."""

    def __init__(self, store: Store, attempts: Path, reach: Reach | None = None) -> None:
        self.store = store
        self.attempts = attempts
        self.reach = reach

    def list(self, job: str) -> list[ArtifactRow]:
        """Return what a job left with where it is now, oldest first, without what is gone. Errors: NotFound."""
        found = self._find(job)
        return [row if place is None else place.told for row, place in found]

    def pull(self, job: str, what: str, folder: str, progress: Progress | None = None) -> builtins.list[str]:
        """Copy `adapter`, `model`, `merged`, `checkpoint[:STEP]` or `logs` to `folder` and return the new paths.

        Every file is written aside, checked by SHA-256 against its source (and against what the trainer recorded),
        and then moved into place; files that are there already and equal are left alone. `merged` is the model as it
        was trained: the export itself, or the adapter merged into its base in a process of its own.

        Errors:
            NotFound: the job has none of it. UsageError: `what` is none of these. DataInvalid: a file is damaged.
            ComputeUnreachable: its machine does not answer; the same call goes on. MissingTool.
        """
        kind, _, step = what.partition(":")
        if kind not in _KINDS or (step and (kind != "checkpoint" or not step.isdigit())):
            raise UsageError(
                f"{what!r} cannot be pulled.", hint=f"Choose one of: {', '.join(_KINDS)}, checkpoint:STEP."
            )
        told = progress or _no_progress
        if kind == "logs":
            return self._pull_logs(job, Path(folder))
        found = self._find(job)
        if kind == "merged":
            return self._pull_merged(job, found, Path(folder), told)
        place = _newest(found, job, kind, int(step) if step else None)
        return self._pull(place, _recorded(found, place), Path(folder), told)

    def _find(self, job: str) -> builtins.list[tuple[ArtifactRow, Whereabouts | None]]:
        """Return what is left with where it is; files are listed with their export."""
        now = self.store.clock.now()
        with self.store.read() as connection:
            job_id = jobs.resolve(connection, job)
            rows = jobs.artifacts(connection, job_id)
            spec, *_ = jobs.spec_and_plan(connection, job_id)
            attempts = {row.number: row for row in jobs.attempts(connection, job_id)}
        finder = Finder(job_id, self.attempts.parent / "jobs" / job_id, spec, attempts)
        found = [(row, None if row.kind == "file" else finder.find(row, now)) for row in rows]
        return [(row, place) for row, place in found if row.kind == "file" or place is not None]

    def _pull(
        self, place: Whereabouts, recorded: Mapping[str, ArtifactRow], folder: Path, progress: Progress
    ) -> builtins.list[str]:
        target = folder / Path(place.row.path).name
        digests = {name: row.sha256 for name, row in recorded.items()}
        if place.path is not None:
            return _copy_folder(place.path, target, digests, progress)
        if place.url:
            return [str(path) for path in copy_bucket(place.url, target, digests, progress)]
        machine = self._machine(place.machine)
        if recorded:
            files = [RemoteFile(name, row.size, row.sha256) for name, row in recorded.items()]
            paths = fetch_files(machine, place.row.path, files, target, progress)
        else:
            paths = fetch_folder(machine, place.row.path, target, progress)
        return [str(path) for path in paths]

    def _machine(self, attempt: str) -> Machine:
        if self.reach is None:
            raise WrongState(f"It lies on the machine of {attempt}, which cannot be reached from here.")
        return self.reach(attempt)

    def _pull_merged(
        self,
        job: str,
        found: builtins.list[tuple[ArtifactRow, Whereabouts | None]],
        folder: Path,
        progress: Progress,
    ) -> builtins.list[str]:
        if any(row.kind == "model" for row, _ in found):
            place = _newest(found, job, "model", None)
            return self._pull(place, _recorded(found, place), folder, progress)
        place = _newest(found, job, "adapter", None)
        self._pull(place, _recorded(found, place), folder, progress)
        with self.store.read() as connection:
            spec, *_ = jobs.spec_and_plan(connection, jobs.resolve(connection, job))
        recipe: dict[str, Any] = spec.get("recipe") or {}
        python = str(spec.get("resources", {}).get("python") or "")
        return [str(path) for path in merge(folder / "adapter", str(recipe.get("model", "")), folder, python)]

    def _pull_logs(self, job: str, folder: Path) -> builtins.list[str]:
        with self.store.read() as connection:
            job_id = jobs.resolve(connection, job)
            name = jobs.get(connection, job_id).name
            attempts = jobs.attempts(connection, job_id)
        pairs = [
            (self.attempts / row.name / "log.txt", folder / f"{name}-attempt-{row.number}.log")
            for row in attempts
            if (self.attempts / row.name / "log.txt").exists()
        ]
        if not pairs:
            raise NotFound(f"{job} has no logs yet.")
        return [str(copy_file(source, target)) for source, target in pairs]


def _newest(
    found: Iterable[tuple[ArtifactRow, Whereabouts | None]], job: str, kind: str, step: int | None
) -> Whereabouts:
    fits = [place for row, place in found if place and row.kind == kind and (step is None or row.step == step)]
    if not fits:
        wanted = kind if step is None else f"{kind} of step {step}"
        raise NotFound(f"{job} has no {wanted}.", hint=f"`ainfinity show {job}` lists what it has.")
    return max(fits, key=lambda place: (place.row.attempt, place.row.step or 0, place.row.at))


def _recorded(
    found: Iterable[tuple[ArtifactRow, Whereabouts | None]], export: Whereabouts
) -> Mapping[str, ArtifactRow]:
    """Return the files that the trainer recorded of an export, by name; none of a checkpoint."""
    if export.row.kind == "checkpoint":
        return {}
    return {row.path: row for row, _ in found if row.kind == "file" and row.attempt == export.row.attempt}


def _copy_folder(source: Path, target: Path, digests: Mapping[str, str], progress: Progress) -> list[str]:
    names = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    # A recorded file that is gone is looked for too, and reported as damaged.
    wanted = sorted(names | digests.keys())
    sizes = {name: (source / name).stat().st_size if name in names else 0 for name in wanted}
    copied: list[str] = []
    came, total = 0, sum(sizes.values())
    for name in wanted:
        copied.append(str(copy_file(source / name, target / name, digests.get(name, ""))))
        came += sizes[name]
        progress(came, total)
    return copied


def _no_progress(came: int, total: int) -> None:
    pass

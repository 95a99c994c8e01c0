"""Bringing a job's results to a folder, checked."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from ainfinity.core.exceptions import DataInvalid, FolderUnwritable, NotFound, UsageError
from ainfinity.schema.views import ArtifactRow
from ainfinity.store import jobs
from ainfinity.store.store import Store

_KINDS = ("adapter", "model", "checkpoint", "logs")


class ArtifactService:
    """What jobs left behind."""

    def __init__(self, store: Store, attempts: Path) -> None:
        self.store = store
        self.attempts = attempts

    def list(self, job: str) -> list[ArtifactRow]:
        """Return what a job left, oldest first, without what is gone by now. Errors: NotFound."""
        with self.store.read() as connection:
            rows = jobs.artifacts(connection, jobs.resolve(connection, job))
        return [row for row in rows if row.kind == "file" or Path(row.path).exists()]

    def pull(self, job: str, what: str, folder: str) -> list[str]:
        """Copy `adapter`, `model`, `checkpoint[:STEP]` or `logs` to `folder` and return the new paths.

        Every file is written aside, checked by SHA-256 against its source (and against what the trainer recorded),
        and then moved into place; files that are there already and equal are left alone.

        Errors:
            NotFound: the job has none of it. UsageError: `what` is none of these. DataInvalid: a file is damaged.
        """
        kind, _, step = what.partition(":")
        if kind not in _KINDS or (step and (kind != "checkpoint" or not step.isdigit())):
            raise UsageError(
                f"{what!r} cannot be pulled.", hint=f"Choose one of: {', '.join(_KINDS)}, checkpoint:STEP."
            )
        recorded: dict[Path, str] = {}
        if kind == "logs":
            pairs = self._logs(job)
        else:
            rows = self.list(job)
            export = self._newest(rows, job, kind, int(step) if step else None)
            source = Path(export.path)
            paths = {path for path in source.rglob("*") if path.is_file()}
            if kind != "checkpoint":
                files = (row for row in rows if row.kind == "file" and row.attempt == export.attempt)
                recorded = {source / row.path: row.sha256 for row in files}
            # A recorded file that is gone is looked for too, and reported as damaged.
            pairs = [(path, path.relative_to(source.parent)) for path in sorted(paths | recorded.keys())]
        return [self._copy(path, Path(folder) / name, recorded.get(path, "")) for path, name in pairs]

    def _newest(self, rows: Iterable[ArtifactRow], job: str, kind: str, step: int | None) -> ArtifactRow:
        fits = [row for row in rows if row.kind == kind and (step is None or row.step == step)]
        if not fits:
            wanted = kind if step is None else f"{kind} of step {step}"
            raise NotFound(f"{job} has no {wanted}.", hint=f"`ainfinity show {job}` lists what it has.")
        return max(fits, key=lambda row: (row.attempt, row.step or 0, row.at))

    def _logs(self, job: str) -> list[tuple[Path, Path]]:
        with self.store.read() as connection:
            job_id = jobs.resolve(connection, job)
            name = jobs.get(connection, job_id).name
            attempts = jobs.attempts(connection, job_id)
        pairs = [
            (self.attempts / row.name / "log.txt", Path(f"{name}-attempt-{row.number}.log"))
            for row in attempts
            if (self.attempts / row.name / "log.txt").exists()
        ]
        if not pairs:
            raise NotFound(f"{job} has no logs yet.")
        return pairs

    def _copy(self, source: Path, target: Path, recorded: str) -> str:
        digest = _sha256(source)
        if recorded and recorded != digest:
            raise DataInvalid(
                f"{source} was changed or damaged after the job ended.", hint="Pull a checkpoint instead."
            )
        if target.is_file() and _sha256(target) == digest:
            return str(target)
        aside = target.with_name(f"{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, aside)
            if _sha256(aside) != digest:
                raise DataInvalid(f"{source} changed while it was copied.", hint="Pull again.")
            os.replace(aside, target)
        except OSError as error:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise FolderUnwritable(
                f"{target} cannot be written: {error.strerror}.", hint="Choose another folder."
            ) from error
        return str(target)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataInvalid(f"{path} cannot be read: {error.strerror}.", hint="Pull a checkpoint instead.") from error

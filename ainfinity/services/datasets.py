"""Data sets: kept by their SHA-256, so that what a job trains on cannot change between its plan and its launch.

A file is copied aside, hashed there, and moved into place. A copy that was killed is gone on with, two copies of the
same bytes at once become one, and bytes that are kept already are not copied again.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

from ainfinity.core.exceptions import DataInvalid, FolderUnwritable, NameTaken, NotFound, UsageError, WrongState
from ainfinity.core.utils import make_folder
from ainfinity.schema.actor import Actor, Role
from ainfinity.schema.data import HASH_PREFIX, DatasetRow, is_dataset_name, is_dataset_ref, slug
from ainfinity.schema.training_job import JobSpec
from ainfinity.services.data import DataFacts, look_at
from ainfinity.store import datasets, jobs
from ainfinity.store.store import Store

#: Bytes copied at once; between two pieces a copy can be interrupted.
_PIECE: Final = 8 << 20
#: Where the kernel cannot copy between these two files by itself.
_BY_HAND: Final = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})


class DatasetService:
    """The data that this installation keeps, under `data_dir`."""

    def __init__(self, store: Store, data_dir: Path) -> None:
        self.store = store
        self.data_dir = data_dir

    def add(self, file: str, actor: Actor, *, name: str = "") -> DatasetRow:
        """Keep a chat JSONL file under a name (by default the file's). The same bytes again are the same data set.

        Errors:
            DataInvalid: it cannot be trained on. NameTaken: other data has that name. UsageError. FolderUnwritable.
        """
        actor.must_be(Role.LAUNCHER, "add data")
        if name and not is_dataset_name(name):
            raise UsageError(
                f"{name!r} cannot name a data set.", hint="Use 1 to 64 of a-z, 0-9, '-' and '_'.", field="name"
            )
        path = os.path.abspath(os.path.expanduser(file))
        facts = self._keep_bytes(path, "FILE")
        wanted = name or slug(Path(path).stem)
        with self.store.write() as connection:
            known = datasets.get(connection, facts.sha256)
            if known is not None and not name:
                return known
            holder = next((row for row in datasets.find(connection, wanted) if row.name == wanted), None)
            if holder is not None and holder.sha256 != facts.sha256:
                raise NameTaken(
                    f"Other data is named {wanted}.",
                    hint=f"Give another --name, or `ainfinity data rm {wanted}` first.",
                    field="name",
                )
            row = DatasetRow(facts.sha256, wanted, facts.size, facts.rows, self.store.clock.now())
            if known is not None:
                row = replace(known, name=wanted)
            datasets.put(connection, row)
            jobs.audit(connection, self.store.clock.now(), actor.name, "data add", facts.sha256, name=wanted)
            return row

    def keep(self, path: str, *, field: str = "recipe.data") -> DataFacts:
        """Look at a job's data and keep its bytes, so that it is launched from what was planned. Errors: as `add`."""
        facts = self._keep_bytes(path, field)
        with self.store.write() as connection:
            if datasets.get(connection, facts.sha256) is None:
                # Never the bare name of the file: that stays free for whoever adds data under it.
                name = f"{slug(Path(path).stem)}-{facts.sha256[:8]}"
                row = DatasetRow(facts.sha256, name, facts.size, facts.rows, self.store.clock.now())
                datasets.put(connection, row)
        return facts

    def place(self, spec: JobSpec) -> None:
        """Copy a job's data once to the folder that its machines share, if that is a folder here too.

        Errors:
            DataInvalid, FolderUnwritable.
        """
        storage = spec.resources.storage
        if spec.recipe is None or storage is None or not os.path.isdir(storage):
            return  # nothing to bring, or a place that is not seen from here: the launch sends the file along
        for key in ("data", "eval_data"):
            named = getattr(spec.recipe, key)
            if named is None:
                continue
            facts = self.keep(named, field=f"recipe.{key}")
            target = datasets.shared_path(storage, facts.sha256)
            if not target.is_file():
                source = datasets.content_path(self.data_dir, facts.sha256)
                copy_checked(source, target, facts, field=f"recipe.{key}", private=False)
            with self.store.write() as connection:
                row = datasets.get(connection, facts.sha256)
                if row is not None and str(target) not in row.places:
                    datasets.put(connection, replace(row, places=(*row.places, str(target))))

    def list(self) -> list[DatasetRow]:
        """Return every data set, newest first."""
        with self.store.read() as connection:
            return datasets.all_rows(connection)

    def show(self, wanted: str) -> DatasetRow:
        """Return one by name, `sha256:…` or the first 8 digits of that or more. Errors: NotFound."""
        with self.store.read() as connection:
            found = datasets.find(connection, wanted.removeprefix(HASH_PREFIX))
            if len(found) == 1:
                return found[0]
            known = datasets.names(datasets.all_rows(connection))
        if found:
            raise NotFound(f"Several data sets begin with {wanted}.", hint="Give more of its digits.")
        raise NotFound(f"There is no data set {wanted!r}.", hint=f"Known: {known}. `ainfinity data add FILE` adds one.")

    def remove(self, wanted: str, actor: Actor) -> DatasetRow:
        """Remove a data set and its file. Errors: NotFound; WrongState while a live job uses it."""
        actor.must_be(Role.LAUNCHER, "remove data")
        row = self.show(wanted)
        with self.store.write() as connection:
            if users := datasets.users(connection, row.sha256):
                raise WrongState(
                    f"{row.name} is used by {', '.join(users[:5])}.", hint="Wait for them, or cancel them first."
                )
            datasets.remove(connection, row.sha256)
            jobs.audit(connection, self.store.clock.now(), actor.name, "data rm", row.sha256, name=row.name)
        # After the row: whoever is killed in between leaves a file that the next `add` of these bytes finds.
        shutil.rmtree(datasets.content_path(self.data_dir, row.sha256).parent, ignore_errors=True)
        return row

    def path_of(self, row: DatasetRow) -> Path:
        """Return the file that holds a data set."""
        return datasets.content_path(self.data_dir, row.sha256)

    def resolve(self, spec: JobSpec) -> JobSpec:
        """Return the spec with the files of the data sets that it names. Errors: NotFound, DataInvalid."""
        if spec.recipe is None:
            return spec
        changes = {key: self._file(getattr(spec.recipe, key), key) for key in ("data", "eval_data")}
        changed = {key: path for key, path in changes.items() if path is not None}
        return spec.model_copy(update={"recipe": replace(spec.recipe, **changed)}) if changed else spec

    def _file(self, named: str | None, key: str) -> str | None:
        if named is None or os.path.isabs(named) or not is_dataset_ref(named):
            return None
        try:
            row = self.show(named)
        except NotFound as error:
            message = f"recipe.{key}: there is no file and no data set {named!r}."
            raise NotFound(message, hint=error.hint, field=f"recipe.{key}") from None
        path = self.path_of(row)
        if not path.is_file():
            hint = f"`ainfinity data rm {row.name}`, then add its file again."
            raise DataInvalid(f"The file of the data set {row.name} is gone.", hint=hint, field=f"recipe.{key}")
        return str(path)

    def _keep_bytes(self, path: str, field: str) -> DataFacts:
        facts = look_at(path, field=field)
        target = datasets.content_path(self.data_dir, facts.sha256)
        if not target.is_file():
            copy_checked(Path(path), target, facts, field=field)
        return facts


def copy_checked(source: Path, target: Path, facts: DataFacts, *, field: str = "data", private: bool = True) -> None:
    """Bring the bytes that `facts` describe from `source` to `target`, in a folder that holds nothing else.

    Errors:
        DataInvalid: the source changes while it is read. FolderUnwritable: the target's disk is full, for example.
    """
    folder = target.parent
    aside = folder.parent / f".{folder.name}.part"
    try:
        make_folder(folder.parent, private=private)
        with _locked(aside) as file:
            if target.is_file():
                return  # whoever held the lock brought it
            # What a killed copy left is gone on with; should it be of other bytes, everything is copied once more.
            for attempt in (1, 2):
                _copy(source, file)
                os.fsync(file)
                if _sha256(file) == facts.sha256:
                    break
                os.ftruncate(file, 0)
                if attempt == 2:
                    hint = "Wait until nothing writes to it, then try again."
                    raise DataInvalid(f"{source} changes while it is read.", hint=hint, field=field)
            os.fchmod(file, 0o444)
            folder.mkdir(exist_ok=True)
            os.replace(aside, target)
            for changed in (folder, folder.parent):
                _sync(changed)
    except OSError as error:
        raise FolderUnwritable(
            f"{target} cannot be written: {error.strerror}.", hint="Free some room, or set AINFINITY_DATA_DIR."
        ) from error


@contextmanager
def _locked(aside: Path) -> Generator[int]:
    """Open the file aside, alone; two who add the same bytes take turns, and the second finds them in place."""
    while True:
        file = os.open(aside, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not aside.exists() or os.fstat(file).st_ino != aside.stat().st_ino:
                continue  # it was moved into place while we waited
            try:
                yield file
            finally:
                if os.fstat(file).st_size == 0:
                    aside.unlink(missing_ok=True)
            return
        finally:
            os.close(file)


def _sha256(file: int) -> str:
    os.lseek(file, 0, os.SEEK_SET)
    with os.fdopen(os.dup(file), "rb") as reader:
        return hashlib.file_digest(reader, "sha256").hexdigest()


def _copy(source: Path, target: int) -> None:
    """Append to `target` what it lacks of `source`. The kernel copies, sharing blocks where the file system can."""
    offset = os.lseek(target, 0, os.SEEK_END)
    with _reading(source) as file:
        file.seek(offset)
        by_hand = not hasattr(os, "copy_file_range")
        while True:
            if not by_hand:
                try:
                    if os.copy_file_range(file.fileno(), target, _PIECE, offset) == 0:
                        return
                    offset = os.lseek(target, 0, os.SEEK_END)
                    continue
                except OSError as error:
                    if error.errno not in _BY_HAND:
                        raise
                    by_hand = True
                    file.seek(offset)
            piece = file.read(_PIECE)
            if not piece:
                return
            _write_all(target, piece)


def _reading(source: Path) -> BinaryIO:
    try:
        return source.open("rb")
    except OSError as error:
        raise DataInvalid(
            f"{source} cannot be read: {error.strerror}.", hint="Leave it in its place and try again."
        ) from None


def _write_all(target: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(target, rest) :]


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

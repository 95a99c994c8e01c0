"""Copies of the SQLite database, taken while others use it, through SQLite's own backup API. Stdlib only."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ainfinity.core.exceptions import FolderUnwritable

#: How many backups are kept beside a database.
KEEP: Final = 5


def backup_folder(database: Path) -> Path:
    """Return where the backups of this database lie. It need not exist."""
    return database.parent / "backups"


def list_backups(database: Path) -> list[Path]:
    """Return the backups of this database, oldest first."""
    found = backup_folder(database).glob(f"{database.stem}-*.db")
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))


def make_backup(database: Path, version: str, now: float) -> Path:
    """Copy the database to `backups/<name>-<version>-<UTC time>.db` beside it and keep the newest few.

    The copy is one consistent moment, also while others write, and is complete as soon as it has its name. One
    process at a time, which the lock of `store.migrate` sees to.

    Errors:
        FolderUnwritable: the copy cannot be written; nothing is left of it.
    """
    folder = backup_folder(database)
    time = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    target = folder / f"{database.stem}-{version}-{time}.db"
    partial = folder / f"{database.stem}.part"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        _remove(partial)
        _copy(database, partial)
        partial.replace(target)
        for old in list_backups(database)[:-KEEP]:
            old.unlink(missing_ok=True)
    except (OSError, sqlite3.Error) as error:
        with contextlib.suppress(OSError):
            _remove(partial)
        raise FolderUnwritable(
            f"The backup {target} could not be written: {error}.",
            hint="Free some space or mend the folder's rights and start again; the database was not changed.",
        ) from error
    return target


def _copy(database: Path, partial: Path) -> None:
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with (
        contextlib.closing(sqlite3.connect(database)) as source,
        contextlib.closing(sqlite3.connect(partial)) as copy,
    ):
        source.backup(copy)
        # The copy is one file on its own: whoever restores it need not know of a write-ahead log.
        copy.execute("PRAGMA journal_mode=DELETE")
    with partial.open("rb") as written:
        os.fsync(written.fileno())


def _remove(partial: Path) -> None:
    """Remove what a killed process left of a copy. Its journal above all: SQLite would apply it to the next one."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        partial.with_name(partial.name + suffix).unlink(missing_ok=True)

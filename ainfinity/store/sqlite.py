"""SQLite through the stdlib alone, for what must not wait for SQLAlchemy: the look at the schema, and fast reads."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ainfinity.core.exceptions import DatabaseBroken, DatabaseLocked, FolderUnwritable, Unreachable

#: Bytes of the smallest page, and so of the smallest database.
_SMALLEST: Final = 512


def sqlite_path(where: Path | str) -> Path | None:
    """Return the SQLite file that a path or database URL names, or None for another kind of database."""
    if isinstance(where, str) and "://" in where:
        return Path(where.removeprefix("sqlite:///")) if where.startswith("sqlite:///") else None
    return Path(where)


@contextlib.contextmanager
def reading(path: Path, *, patience: float = 10.0) -> Generator[sqlite3.Connection | None]:
    """Open a SQLite file read-only, in a transaction: all that is read is of one moment. None for no or an empty file.

    Errors, also of what the block does with the connection:
        DatabaseLocked: it was locked for longer than `patience` seconds. DatabaseBroken. FolderUnwritable.
    """
    size = _size(path)
    if size == 0:
        yield None
        return
    if size < _SMALLEST:
        # SQLite would take it for an empty database and write over it.
        raise _broken(path)
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    try:
        # isolation_level=None: the driver begins nothing on its own.
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=patience, isolation_level=None)) as connection:
            connection.execute("BEGIN")
            yield connection
    except sqlite3.Error as error:
        raise explain(error, path) or DatabaseBroken(f"{path} cannot be read: {error}.") from error


def explain(error: Exception, place: Path | str) -> Unreachable | None:
    """Return the error of ours that says what an error of the SQLite driver means, or None where none does."""
    text = str(error).lower()
    if "locked" in text or "busy" in text:
        return DatabaseLocked(
            f"{place} was locked by another process for too long.",
            hint="Try again; if it stays so, `ainfinity doctor` shows who holds it.",
        )
    if "not a database" in text or "malformed" in text:
        return _broken(place)
    if "disk is full" in text or "disk i/o" in text:
        return FolderUnwritable(f"The disk that holds {place} is full or failing.", hint="Free some space and retry.")
    if "readonly" in text or "unable to open" in text:
        return unusable(place, error)
    return None


def _broken(place: Path | str) -> DatabaseBroken:
    return DatabaseBroken(
        f"{place} is damaged or no database.", hint="Restore a backup (see README, Backup); nothing was changed."
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise unusable(path, error) from error


def unusable(place: Path | str, error: Exception) -> FolderUnwritable:
    """Return the error for a file or folder that cannot be opened, read or made."""
    return FolderUnwritable(
        f"{place} cannot be used: {error}.",
        hint="Check the folder's owner and rights, or set AINFINITY_DATA_DIR to another folder.",
    )

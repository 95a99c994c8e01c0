"""SQLite through the stdlib alone, for what must not wait for SQLAlchemy: the look at the schema, and fast reads."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

from ainfinity.core.exceptions import DatabaseBroken, DatabaseLocked, FolderUnwritable, Unreachable


def sqlite_path(where: Path | str) -> Path | None:
    """Return the SQLite file that a path or database URL names, or None for another kind of database."""
    if isinstance(where, str) and "://" in where:
        return Path(where.removeprefix("sqlite:///")) if where.startswith("sqlite:///") else None
    return Path(where)


def open_read_only(path: Path, *, patience: float = 10.0) -> sqlite3.Connection:
    """Open an existing SQLite file for reading; wait up to `patience` seconds where it is locked."""
    # isolation_level=None: the driver begins nothing on its own.
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=patience, isolation_level=None)


def explain(error: Exception, place: Path | str) -> Unreachable | None:
    """Return the error of ours that says what an error of the SQLite driver means, or None where none does."""
    text = str(error).lower()
    if "locked" in text or "busy" in text:
        return DatabaseLocked(
            f"{place} was locked by another process for too long.",
            hint="Try again; if it stays so, `ainfinity doctor` shows who holds it.",
        )
    if "not a database" in text or "malformed" in text:
        return DatabaseBroken(
            f"{place} is damaged or no database.", hint="Restore a backup (see README, Backup); nothing was changed."
        )
    if "disk is full" in text or "disk i/o" in text:
        return FolderUnwritable(f"The disk that holds {place} is full or failing.", hint="Free some space and retry.")
    if "readonly" in text or "unable to open" in text:
        return unusable(place, error)
    return None


def unusable(place: Path | str, error: Exception) -> FolderUnwritable:
    """Return the error for a file or folder that cannot be opened, read or made."""
    return FolderUnwritable(
        f"{place} cannot be used: {error}.",
        hint="Check the folder's owner and rights, or set AINFINITY_DATA_DIR to another folder.",
    )

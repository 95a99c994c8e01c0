"""Bringing the schema up to date, and refusing what a newer version wrote.

The usual start finds the schema current with one look through the stdlib and imports neither Alembic nor SQLAlchemy.
Else one process at a time, under a file lock, backs the file up and runs all missing revisions in one transaction that
holds SQLite's write lock: whoever is killed in the middle leaves the old schema, and a worker of an older version finds
the new one before its next write (`check_version`) and leaves without touching its jobs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ainfinity.core.exceptions import DatabaseBroken, DatabaseLocked, DatabaseNewer, DatabaseOlder
from ainfinity.store.sqlite import reading, sqlite_path, unusable

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

#: Seconds to wait for another process that changes the schema.
_PATIENCE: Final = 60.0


@dataclass(frozen=True, slots=True)
class History:
    """The revisions this code knows, oldest first, and the Alembic folder that holds them."""

    folder: Path
    revisions: tuple[str, ...]

    @property
    def head(self) -> str:
        """The revision that the tables of this code have."""
        return self.revisions[-1]


#: Kept equal to the revision files by a test.
HISTORY: Final = History(Path(__file__).with_name("migrations"), ("0001", "0002"))
HEAD: Final = HISTORY.head


def ensure_schema(where: Path | str, *, history: History = HISTORY) -> None:
    """Create the database, or bring it to this code's schema; do nothing where it has it.

    Args:
        where: the SQLite file, or a database URL.

    Errors:
        DatabaseNewer, DatabaseBroken: nothing was touched. DatabaseLocked: another process was too slow.
        FolderUnwritable: the folder or its disk.
    """
    path = sqlite_path(where)
    if path is None:
        _upgrade(str(where), history)
    elif look(path) != history.head:
        with _file_lock(path):
            version = look(path)
            if version is not None:
                must_be_known(version, path, history)
            if version != history.head:
                if version is not None:
                    from ainfinity.store.backup import make_backup

                    make_backup(path, version, time.time())
                _upgrade(f"sqlite:///{path}", history)


def look(path: Path) -> str | None:
    """Return the schema's version, without writing anything; None for no file or one without any table.

    Errors:
        DatabaseBroken: the file is no database, or not one of ours. DatabaseLocked. FolderUnwritable.
    """
    with reading(path) as connection:
        return None if connection is None else version_of(connection, path)


def version_of(connection: sqlite3.Connection, path: Path) -> str | None:
    """Do as `look` on an open connection."""
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        row = None
    if row is not None:
        return str(row[0])
    if connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None:
        return None
    raise DatabaseBroken(
        f"{path} is a database, but none of ainfinity.",
        hint="Move it away, or set AINFINITY_DATA_DIR or AINFINITY_DATABASE_URL to another place.",
    )


def must_be_known(version: str, place: Path | str, history: History = HISTORY) -> None:
    """Refuse a schema that this code does not know. Errors: DatabaseNewer."""
    if version not in history.revisions:
        raise DatabaseNewer(
            f"{place} was written by a newer ainfinity (its schema is {version}, this one knows {history.head}).",
            hint="Use the newer version; nothing was changed.",
        )


def must_be_current(version: str | None, place: Path | str, history: History = HISTORY) -> None:
    """Refuse any schema but this code's. Errors: DatabaseNewer, DatabaseOlder."""
    if version == history.head:
        return
    if version is not None:
        must_be_known(version, place, history)
    raise DatabaseOlder(
        f"{place} has schema {version or 'none'}, and this ainfinity needs {history.head}.",
        hint="Any command that writes, for example `ainfinity launch`, brings it up to date.",
    )


def current(connection: Connection) -> str | None:
    """Return the schema's version as seen in a transaction; None before the first revision."""
    import sqlalchemy as sa

    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none()


def check_version(connection: Connection, *, history: History = HISTORY) -> None:
    """Make sure, at the start of a transaction, that nobody changed the schema under us (tens of microseconds).

    Errors:
        DatabaseNewer, DatabaseOlder: write nothing, and leave.
    """
    version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none()
    must_be_current(version, "The database", history)


def _upgrade(url: str, history: History) -> None:
    """Run what is missing, in one transaction. Costs Alembic's import."""
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import event

    from ainfinity.store.database import Database

    config = Config()
    config.set_main_option("script_location", str(history.folder).replace("%", "%%"))
    database = Database(url, busy_timeout=_PATIENCE)
    if database.is_sqlite:
        # A table that is rebuilt must not take the rows that refer to it along. It cannot be set in a transaction.
        event.listen(database.engine, "connect", _without_foreign_keys)
    try:
        with database.write(durable=True) as connection:
            version = current(connection)
            if version == history.head:
                return
            if version is not None:
                must_be_known(version, "The database", history)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            if version is None:
                _fill(connection)
            _check_references(connection)
    finally:
        database.close()


def _without_foreign_keys(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA foreign_keys=OFF")


def _fill(connection: Connection) -> None:
    """Write what a new database must hold."""
    from ainfinity.store.tables import core

    connection.execute(core("meta").insert().values(name="installation", value=os.urandom(4).hex()))
    connection.execute(core("team").insert().values(id="local", name="local", created_at=time.time()))


def _check_references(connection: Connection) -> None:
    if connection.dialect.name != "sqlite":
        return
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if broken is not None:
        raise DatabaseBroken(
            f"A row of {broken[0]} refers to one of {broken[2]} that does not exist.",
            hint="Nothing was changed. Restore a backup (see README, Backup).",
        )


@contextlib.contextmanager
def _file_lock(path: Path) -> Generator[None]:
    """Let one process at a time change the schema of `path`; makes the folder where it is missing."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(f"{path}.migrate.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable(path, error) from error
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DatabaseLocked(
                        f"Another process has been migrating {path} for more than {_PATIENCE:g} seconds.",
                        hint="Wait for it, or end it: the database keeps its old schema.",
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(handle)

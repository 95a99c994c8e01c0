"""Connections and transactions, one set of rules for every database.

Every writing transaction on SQLite begins IMMEDIATE: SQLAlchemy's default begins nothing until the first write, and a
read-then-update then silently loses other writers' changes. The driver's own transaction handling is off
(`isolation_level=None`), so that a rolled-back CREATE TABLE is really rolled back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DatabaseError, OperationalError

from ainfinity.core.exceptions import AinfinityError, DatabaseBroken, Unreachable
from ainfinity.store.sqlite import explain, sqlite_path

_MODE = "ainfinity_mode"


class Database:
    """One database. Threads may share it; connections are pooled."""

    def __init__(self, url: str, *, busy_timeout: float = 10.0) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        self.path = sqlite_path(url)
        arguments: dict[str, Any] = {}
        if self.is_sqlite:
            arguments["connect_args"] = {"timeout": busy_timeout, "isolation_level": None, "check_same_thread": False}
        # What stands in a file's name is no part of URL syntax: a `?` or `#` is just a character.
        target = url if self.path is None else sa.URL.create("sqlite", database=str(self.path))
        self.engine: Engine = sa.create_engine(target, **arguments)
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)

    @contextmanager
    def write(self, *, durable: bool = False) -> Generator[Connection]:
        """Run one writing transaction: committed at the end of the block, rolled back on any exception.

        With `durable` the commit survives a power loss too; other commits survive the death of any process.

        Errors:
            DatabaseLocked: another writer held it for longer than the busy timeout.
        """
        with self._connect("durable" if durable else "write") as connection:
            if not self.is_sqlite:
                # One writer at a time, so that the order of `seq` is the order of commits.
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(7201)"))
            yield connection

    @contextmanager
    def read(self) -> Generator[Connection]:
        """Run one reading transaction: everything read in the block is of one moment."""
        with self._connect("read") as connection:
            yield connection

    @contextmanager
    def _connect(self, mode: str) -> Generator[Connection]:
        try:
            with self.engine.connect() as raw:
                connection = raw.execution_options(**{_MODE: mode})
                with connection.begin():
                    yield connection
        except DatabaseError as error:
            raise translate(error, self.url) from error

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    mode = connection.get_execution_options().get(_MODE, "read")
    wanted = "FULL" if mode == "durable" else "NORMAL"
    if mode != "read" and connection.info.get("synchronous", "NORMAL") != wanted:
        connection.exec_driver_sql(f"PRAGMA synchronous={wanted}")
        connection.info["synchronous"] = wanted
    connection.exec_driver_sql("BEGIN" if mode == "read" else "BEGIN IMMEDIATE")


def translate(error: DatabaseError | sqlite3.DatabaseError, url: str) -> AinfinityError | DatabaseError:
    """Return the error of ours that says what a driver's error means, or the same error where none does."""
    place = url.removeprefix("sqlite:///") if url.startswith("sqlite") else "the database"
    known = explain(getattr(error, "orig", None) or error, place)
    if known is not None:
        return known
    if isinstance(error, OperationalError) and not url.startswith("sqlite"):
        return Unreachable("The database does not answer.", hint="Check AINFINITY_DATABASE_URL and the server.")
    return error if isinstance(error, DatabaseError) else DatabaseBroken(f"{place}: {error}")

"""The store: one database, one clock, one doorbell."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

from sqlalchemy.engine import Connection

from ainfinity.core.clock import Clock, SystemClock
from ainfinity.core.config import Settings
from ainfinity.core.utils import make_folder
from ainfinity.store.database import Database
from ainfinity.store.doorbell import Bell, NullBell, SocketBell
from ainfinity.store.migrate import ensure_schema


class Store:
    """What services and engine share. `places` are where notices are owed to."""

    def __init__(self, database: Database, clock: Clock, bell: Bell | None = None, places: Sequence[str] = ()) -> None:
        self.database = database
        self.clock = clock
        self.bell: Bell = bell or NullBell()
        self.places = tuple(places)

    @contextmanager
    def write(self, *, durable: bool = False) -> Generator[Connection]:
        """Run one writing transaction and ring the doorbell after its commit."""
        with self.database.write(durable=durable) as connection:
            yield connection
        self.bell.ring()

    @contextmanager
    def read(self) -> Generator[Connection]:
        """Run one reading transaction."""
        with self.database.read() as connection:
            yield connection

    def close(self) -> None:
        """Close the database."""
        self.database.close()


def open_store(settings: Settings, clock: Clock | None = None) -> Store:
    """Open the database that the settings name, with its schema up to date, and its doorbell.

    Errors:
        DatabaseNewer, DatabaseBroken, DatabaseLocked, FolderUnwritable.
    """
    path = settings.sqlite_path
    if path is not None:
        make_folder(path.parent)
    ensure_schema(settings.database)
    database = Database(settings.database, busy_timeout=settings.busy_timeout)
    places = ("file", "command") if settings.notify_command else ("file",)
    return Store(database, clock or SystemClock(), NullBell() if path is None else SocketBell(path), places)

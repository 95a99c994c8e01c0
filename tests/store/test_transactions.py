"""Why every writing transaction begins IMMEDIATE: what SQLAlchemy's defaults lose."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from ainfinity.core.exceptions import DatabaseLocked
from ainfinity.store.database import Database

THREADS, ROUNDS = 4, 200


def count_up(path: Path, once: Callable[[], None]) -> int:
    """Let four threads read a number and write it back one greater, 200 times each; return where it ends."""
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO meta VALUES ('count', '0')")
    barrier = threading.Barrier(THREADS)

    def work() -> None:
        for _ in range(ROUNDS):
            barrier.wait(60)
            once()

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engine.connect() as connection:
        value = connection.exec_driver_sql("SELECT value FROM meta WHERE name = 'count'").scalar_one()
    engine.dispose()
    return int(value)


def read_then_update(connection: sa.Connection) -> None:
    value = int(connection.exec_driver_sql("SELECT value FROM meta WHERE name = 'count'").scalar_one())
    connection.exec_driver_sql("UPDATE meta SET value = ? WHERE name = 'count'", (str(value + 1),))


def test_no_update_is_lost(path: Path, database: Database) -> None:
    def once() -> None:
        with database.write() as connection:
            read_then_update(connection)

    assert count_up(path, once) == THREADS * ROUNDS


def test_sqlalchemys_default_loses_updates_silently(path: Path) -> None:
    """The negative control: nothing fails, and most of the writes are gone."""
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})
    together = threading.Barrier(THREADS)

    def once() -> None:
        with engine.begin() as connection:
            value = int(connection.exec_driver_sql("SELECT value FROM meta WHERE name = 'count'").scalar_one())
            together.wait(60)  # the worst order of the four, every time
            connection.exec_driver_sql("UPDATE meta SET value = ? WHERE name = 'count'", (str(value + 1),))

    found = count_up(path, once)
    engine.dispose()
    assert found == ROUNDS, f"lost {THREADS * ROUNDS - found} of {THREADS * ROUNDS}"


def test_a_plain_begin_fails_instead_of_waiting(path: Path) -> None:
    """Why the write lock is taken at the start: one that is wanted later is refused, whatever the timeout."""
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 30, "isolation_level": None})
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    with engine.begin() as one:
        one.exec_driver_sql("SELECT value FROM meta").all()
        with engine.begin() as two:
            two.exec_driver_sql("UPDATE meta SET value = 'x' WHERE name = 'installation'")
        with pytest.raises(OperationalError, match="locked"):
            one.exec_driver_sql("UPDATE meta SET value = 'y' WHERE name = 'installation'")
    engine.dispose()


def test_an_exception_undoes_the_block(database: Database) -> None:
    def fail() -> None:
        with database.write() as connection:
            connection.exec_driver_sql("CREATE TABLE extra (x)")
            connection.exec_driver_sql("INSERT INTO meta VALUES ('a', 'b')")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with database.read() as connection:
        assert not sa.inspect(connection).has_table("extra")
        assert connection.exec_driver_sql("SELECT 1 FROM meta WHERE name = 'a'").first() is None


def test_one_reading_block_is_of_one_moment(database: Database) -> None:
    with database.read() as reader:
        before = reader.exec_driver_sql("SELECT count(*) FROM meta").scalar_one()
        with database.write() as writer:
            writer.exec_driver_sql("INSERT INTO meta VALUES ('a', 'b')")
        assert reader.exec_driver_sql("SELECT count(*) FROM meta").scalar_one() == before
    with database.read() as reader:
        assert reader.exec_driver_sql("SELECT count(*) FROM meta").scalar_one() == before + 1


def test_a_writer_that_waits_too_long_is_told(path: Path, database: Database) -> None:
    impatient = Database(f"sqlite:///{path}", busy_timeout=0.05)
    told = pytest.raises(DatabaseLocked, match="locked by another process")
    with database.write(), told as caught, impatient.write():
        pytest.fail("two writers at once")
    assert caught.value.hint
    with impatient.write() as connection:
        connection.exec_driver_sql("INSERT INTO meta VALUES ('a', 'b')")
    impatient.close()


def test_references_are_enforced(database: Database) -> None:
    with pytest.raises(sa.exc.IntegrityError), database.write() as connection:
        connection.exec_driver_sql("INSERT INTO progress (job_id, step, total_steps, rev) VALUES ('none', 0, 0, 1)")

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from ainfinity.core.exceptions import FolderUnwritable
from ainfinity.store.backup import KEEP, backup_folder, list_backups, make_backup
from ainfinity.store.database import Database
from ainfinity.store.migrate import HEAD, ensure_schema, look


def test_a_backup_is_one_file_that_is_a_database(path: Path, database: Database) -> None:
    """Also of what stands only in the write-ahead log."""
    with database.write() as connection:
        connection.exec_driver_sql("INSERT INTO meta VALUES ('a', 'b')")
    made = make_backup(path, HEAD, 1_760_000_000.25)
    assert made == path.parent / "backups" / f"ainfinity-{HEAD}-20251009T085320.250000Z.db"
    assert [file.name for file in made.parent.iterdir()] == [made.name]
    assert made.stat().st_mode & 0o077 == 0
    assert look(made) == HEAD
    with contextlib.closing(sqlite3.connect(made)) as connection:
        assert connection.execute("SELECT value FROM meta WHERE name = 'a'").fetchone() == ("b",)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_backup_while_others_write_is_of_one_moment(path: Path, database: Database) -> None:
    """A writer keeps two rows equal; so they are in every copy."""
    with database.write() as connection:
        connection.exec_driver_sql("INSERT INTO meta VALUES ('x', '0'), ('y', '0'), ('big', hex(zeroblob(200000)))")
    stop = threading.Event()

    def write() -> None:
        count = 0
        while not stop.is_set():
            count += 1
            with database.write() as connection:
                for name in "xy":
                    connection.exec_driver_sql("UPDATE meta SET value = ? WHERE name = ?", (str(count), name))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(10):
            with contextlib.closing(sqlite3.connect(make_backup(path, HEAD, float(number)))) as connection:
                one, two = connection.execute("SELECT value FROM meta WHERE name IN ('x', 'y')").fetchall()
            assert one == two
    finally:
        stop.set()
        writer.join()


def test_the_newest_are_kept(path: Path) -> None:
    made = [make_backup(path, HEAD, float(number)) for number in range(KEEP + 3)]
    (path.parent / "backups" / "mine.db").touch()
    (path.parent / "backups" / "other-0001-x.db").touch()
    assert list_backups(path) == made[3:]
    assert (path.parent / "backups" / "mine.db").exists()
    assert (path.parent / "backups" / "other-0001-x.db").exists()


def test_what_a_killed_copy_left_does_no_harm(path: Path) -> None:
    folder = backup_folder(path)
    folder.mkdir()
    for suffix in ("", "-journal", "-wal", "-shm"):
        (folder / f"ainfinity.part{suffix}").write_bytes(b"rubbish" * 1000)
    made = make_backup(path, HEAD, 1.0)
    assert [file.name for file in folder.iterdir()] == [made.name]
    assert look(made) == HEAD


def test_a_backup_that_cannot_be_written_is_told(path: Path) -> None:
    (path.parent / "backups").touch()
    with pytest.raises(FolderUnwritable, match=r"could not be written.*database was not changed"):
        make_backup(path, HEAD, 1.0)


def test_a_backup_can_be_put_back(path: Path, database: Database) -> None:
    made = make_backup(path, HEAD, 1.0)
    database.close()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    shutil.copy(made, path)
    ensure_schema(path)
    with database.write() as connection:
        connection.exec_driver_sql("INSERT INTO meta VALUES ('a', 'b')")
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"

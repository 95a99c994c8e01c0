from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlmodel import SQLModel

from ainfinity.core.exceptions import (
    AinfinityError,
    DatabaseBroken,
    DatabaseLocked,
    DatabaseNewer,
    DatabaseOlder,
    FolderUnwritable,
)
from ainfinity.store import migrate
from ainfinity.store.backup import list_backups
from ainfinity.store.database import Database
from ainfinity.store.migrate import HEAD, HISTORY, History, check_version, current, ensure_schema, look


def run(script: str, *arguments: str) -> str:
    """Run a script in a fresh interpreter and return what it printed."""
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def set_version(path: Path, version: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
        connection.commit()


def contents(folder: Path) -> dict[str, str]:
    """The files of a folder; but SQLite's shared memory, which also readers write, and empty logs."""
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.endswith("-shm")]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.stat().st_size}


def later_history(folder: Path, upgrade: str) -> History:
    """A history with one more revision, whose `upgrade` has this body."""
    shutil.copytree(HISTORY.folder, folder, ignore=shutil.ignore_patterns("__pycache__"))
    body = textwrap.indent(textwrap.dedent(upgrade), "    ")
    head = f'import sqlalchemy as sa\nfrom alembic import op\nrevision = "later"\ndown_revision = "{HEAD}"\n\n'
    (folder / "versions" / "later.py").write_text(f"{head}def upgrade():\n{body}\n")
    return History(folder, (*HISTORY.revisions, "later"))


# --- the revisions and the tables


def test_the_known_revisions_are_the_revision_files() -> None:
    config = Config()
    config.set_main_option("script_location", str(HISTORY.folder))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [HEAD]
    assert tuple(script.revision for script in reversed(list(scripts.walk_revisions()))) == HISTORY.revisions


def test_the_revisions_make_the_tables(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, SQLModel.metadata) == []


def test_a_difference_of_the_tables_would_be_seen(database: Database) -> None:
    """The negative control of the test before."""
    with database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE job ADD COLUMN mood TEXT")
        connection.exec_driver_sql("DROP INDEX ix_job_state")
    with database.read() as connection:
        found = compare_metadata(MigrationContext.configure(connection), SQLModel.metadata)
    assert {entry[0] for entry in found} == {"remove_column", "add_index"}


def test_the_tables_are_the_same_to_the_letter(path: Path, tmp_path: Path) -> None:
    """Beyond what Alembic compares: keys, references, uniqueness, autoincrement, the order of columns."""
    other = Database(f"sqlite:///{tmp_path / 'other.db'}")
    with other.write() as connection:
        SQLModel.metadata.create_all(connection)
    other.close()

    def definitions(where: Path) -> list[list[str]]:
        with contextlib.closing(sqlite3.connect(where)) as connection:
            texts = connection.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL AND name != 'alembic_version'")
            # A table that was rebuilt under another name stands there in quotes.
            plain = [re.sub(r'^CREATE TABLE "(\w+)"', r"CREATE TABLE \1", text) for (text,) in texts]
            lines = [[line.strip().removesuffix(",") for line in text.splitlines()] for text in plain]
        constraint = re.compile("PRIMARY KEY|FOREIGN KEY|UNIQUE")
        return sorted(
            [line for line in table if not constraint.match(line)] + sorted(filter(constraint.match, table))
            for table in lines
        )

    assert definitions(path) == definitions(tmp_path / "other.db")


# --- the first start


def test_a_first_start_makes_folder_database_and_what_it_must_hold(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "ainfinity.db"
    assert look(path) is None
    ensure_schema(path)
    assert look(path) == HEAD
    assert path.parent.stat().st_mode & 0o077 == 0
    with contextlib.closing(sqlite3.connect(path)) as connection:
        facts = dict(connection.execute("SELECT name, value FROM meta"))
        assert connection.execute("SELECT id, name FROM team").fetchall() == [("local", "local")]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert re.fullmatch("[0-9a-f]{8}", facts["installation"])
    ensure_schema(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert dict(connection.execute("SELECT name, value FROM meta")) == facts
    assert list_backups(path) == []


@pytest.mark.parametrize("name", ["with space", "100%", "q?a#b", "ünï", "it's"])
def test_any_folder_name_will_do(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "ainfinity.db"
    ensure_schema(path)
    assert look(path) == HEAD
    assert path.exists()


def test_an_empty_file_is_filled(tmp_path: Path) -> None:
    path = tmp_path / "ainfinity.db"
    path.touch()
    ensure_schema(path)
    assert look(path) == HEAD


def test_a_current_database_costs_no_import(path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        from ainfinity.store.migrate import ensure_schema
        ensure_schema(Path(sys.argv[1]))
        heavy = {"alembic", "sqlalchemy", "sqlmodel", "pydantic"}
        print(sorted({name.partition(".")[0] for name in sys.modules} & heavy))
    """
    assert run(script, str(path)) == "[]"
    assert run(script, str(path.with_name("other.db"))) == "['alembic', 'pydantic', 'sqlalchemy', 'sqlmodel']"


# --- refusals


@pytest.mark.parametrize("log", ["closed", "with a log"])
def test_a_newer_database_is_refused_and_not_touched(path: Path, log: str) -> None:
    with contextlib.ExitStack() as stack:
        if log == "closed":
            set_version(path, "0099")
        else:
            held = stack.enter_context(contextlib.closing(sqlite3.connect(path)))
            held.execute("UPDATE alembic_version SET version_num = '0099'")
            held.commit()
            assert path.with_name("ainfinity.db-wal").stat().st_size
        before = contents(path.parent)
        with pytest.raises(DatabaseNewer, match=r"0099.*newer version; nothing was changed") as caught:
            ensure_schema(path)
        assert caught.value.exit_code == 4
        assert contents(path.parent) == before
        assert "ainfinity.db.migrate.lock" not in before


def test_a_database_that_became_newer_while_we_waited_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look says older; by the time the lock is ours another process has upgraded."""
    set_version(path, "0099")
    looks = iter([None])
    real = migrate.look
    monkeypatch.setattr(migrate, "look", lambda where: next(looks, None) or real(where))
    with pytest.raises(DatabaseNewer):
        ensure_schema(path)
    assert list_backups(path) == []


@pytest.mark.parametrize("content", [b"not a database, but long enough to be one " * 100, b"x"])
def test_something_else_than_a_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ainfinity.db"
    path.write_bytes(content)
    with pytest.raises(DatabaseBroken, match="damaged or no database"):
        ensure_schema(path)
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["ainfinity.db"]


def test_a_damaged_database_is_refused(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100:4096] = os.urandom(3996)
    path.write_bytes(data)
    with pytest.raises(DatabaseBroken):
        ensure_schema(path)


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ainfinity.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = contents(tmp_path)
    with pytest.raises(DatabaseBroken, match="none of ainfinity"):
        ensure_schema(path)
    assert contents(tmp_path) == before


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FolderUnwritable, match="AINFINITY_DATA_DIR"):
        ensure_schema(tmp_path / "file" / "ainfinity.db")


@pytest.mark.parametrize("what", ["new", "older"])
def test_a_folder_without_the_right_to_write_is_refused(path: Path, what: str) -> None:
    """As a user without rights, which root never is."""
    if what == "older":
        set_version(path, HEAD)
    folder = path.parent
    script = """
        import os, sys
        from pathlib import Path
        from ainfinity.core.exceptions import AinfinityError
        from ainfinity.store.migrate import HISTORY, History, ensure_schema
        path, what = Path(sys.argv[1]), sys.argv[2]
        history = HISTORY
        if what == "older":
            history = History(HISTORY.folder, (*HISTORY.revisions, "later"))
        else:
            path = path.with_name("other") / "ainfinity.db"
        if os.getuid() == 0:
            os.setegid(65534)
            os.seteuid(65534)
        try:
            ensure_schema(path, history=history)
        except AinfinityError as error:
            print(error.code)
    """
    for parent in (folder, *folder.parents[:3]):
        parent.chmod(0o755)
    folder.chmod(0o555)
    path.chmod(0o444)
    try:
        assert run(script, str(path), what) == "folder_unwritable"
    finally:
        folder.chmod(0o755)


def test_a_locked_database_is_told(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(migrate, "_PATIENCE", 0.05)
    history = later_history(tmp_path / "later", "op.execute('CREATE TABLE extra (x)')")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseLocked):
            ensure_schema(path, history=history)
    ensure_schema(path, history=history)
    assert look(path) == "later"


def test_a_migration_that_takes_too_long_is_told(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import fcntl

    monkeypatch.setattr(migrate, "_PATIENCE", 0.05)
    with path.with_name("ainfinity.db.migrate.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DatabaseLocked, match="has been migrating"):
            ensure_schema(path, history=History(tmp_path, (*HISTORY.revisions, "later")))


# --- upgrades


def test_an_upgrade_keeps_rows_that_refer_to_a_rebuilt_table(
    path: Path, database: Database, tmp_path: Path, add_job: Callable[..., Any]
) -> None:
    with database.write() as connection:
        add_job(connection, "a")
        connection.exec_driver_sql("INSERT INTO progress (job_id, step, total_steps, rev) VALUES ('a', 3, 9, 1)")
    history = later_history(
        tmp_path / "later", "with op.batch_alter_table('job') as batch:\n    batch.drop_column('note')"
    )
    ensure_schema(path, history=history)
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT step FROM progress WHERE job_id = 'a'").scalar_one() == 3
        assert current(connection) == "later"
    (backup,) = list_backups(path)
    assert backup.name.startswith(f"ainfinity-{HEAD}-")
    assert look(backup) == HEAD


def test_an_upgrade_that_leaves_references_broken_is_undone(
    path: Path, database: Database, tmp_path: Path, add_job: Callable[..., Any]
) -> None:
    with database.write() as connection:
        add_job(connection, "a")
        connection.exec_driver_sql("INSERT INTO progress (job_id, step, total_steps, rev) VALUES ('a', 3, 9, 1)")
    history = later_history(tmp_path / "later", "op.execute('DELETE FROM job')")
    with pytest.raises(DatabaseBroken, match="refers to"):
        ensure_schema(path, history=history)
    assert look(path) == HEAD
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM job").scalar_one() == 1


def test_an_upgrade_that_fails_is_undone_as_a_whole(path: Path, tmp_path: Path) -> None:
    history = later_history(tmp_path / "later", "op.execute('CREATE TABLE extra (x)')\nraise RuntimeError('no')")
    with pytest.raises(RuntimeError, match="no"):
        ensure_schema(path, history=history)
    assert look(path) == HEAD
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'extra'").fetchone() is None


def test_the_drivers_defaults_would_keep_a_rolled_back_table(path: Path) -> None:
    """The negative control of the test before."""
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE extra (x)")
        connection.rollback()
    engine.dispose()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'extra'").fetchone() == (1,)


def test_a_full_disk_leaves_the_old_schema(path: Path, database: Database, tmp_path: Path) -> None:
    """The database may not grow by more than it has; the backup is what needs the room first."""
    with database.write() as connection:
        connection.exec_driver_sql("INSERT INTO meta VALUES ('big', hex(zeroblob(400000)))")
    database.close()
    later_history(tmp_path / "later", "op.execute('CREATE TABLE extra (x)')")
    script = """
        import resource, sys
        from pathlib import Path
        from ainfinity.core.exceptions import AinfinityError
        from ainfinity.store.migrate import HISTORY, History, ensure_schema
        history = History(Path(sys.argv[2]), (*HISTORY.revisions, "later"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), -1))
        try:
            ensure_schema(Path(sys.argv[1]), history=history)
        except AinfinityError as error:
            print(error.code)
    """
    assert run(script, str(path), str(tmp_path / "later"), "300000") == "folder_unwritable"
    assert look(path) == HEAD
    assert list_backups(path) == []
    assert not list((path.parent / "backups").iterdir())
    assert run(script, str(path), str(tmp_path / "later"), "9000000") == ""
    assert look(path) == "later"


# --- the worker's check


def test_check_version(path: Path, database: Database, tmp_path: Path) -> None:
    with database.write() as connection:
        check_version(connection)
    with pytest.raises(DatabaseOlder, match="needs later"), database.read() as connection:
        check_version(connection, history=History(tmp_path, (HEAD, "later")))
    set_version(path, "0099")
    with pytest.raises(DatabaseNewer), database.write() as connection:
        check_version(connection)


def test_the_version_of_a_database_without_tables(tmp_path: Path) -> None:
    empty = Database(f"sqlite:///{tmp_path / 'empty.db'}")
    with empty.read() as connection:
        assert current(connection) is None
    empty.close()
    assert look(tmp_path / "empty.db") is None


def test_every_refusal_says_what_to_do_next(path: Path, tmp_path: Path) -> None:
    errors: list[AinfinityError] = []
    set_version(path, "0099")
    (tmp_path / "junk").write_bytes(b"x" * 5000)
    (tmp_path / "folder").mkdir()
    for place in (path, tmp_path / "junk", tmp_path / "junk" / "x.db", tmp_path / "folder"):
        with pytest.raises(AinfinityError) as caught:
            ensure_schema(place)
        errors.append(caught.value)
    codes = [error.code for error in errors]
    assert codes == ["database_newer", "database_broken", "folder_unwritable", "folder_unwritable"]
    assert all(error.hint and str(tmp_path) in error.message for error in errors)

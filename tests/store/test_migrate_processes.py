"""Real processes that migrate at once, die in the middle, or work on while another upgrades."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ainfinity.store.backup import KEEP, list_backups
from ainfinity.store.database import Database
from ainfinity.store.migrate import HISTORY, History, ensure_schema, look

ROUNDS = int(os.environ.get("AINFINITY_ROUNDS", "20"))
JOBS = 300

# A later revision that takes its time, writes down how far it is, and touches every row.
_SLOW = """
import time
from pathlib import Path
import sqlalchemy as sa
from alembic import op

revision = "later"
down_revision = "HEAD"

def step():
    with Path(__file__).with_name("marks").open("a") as marks:
        marks.write("x")
    time.sleep(0.003)

def upgrade():
    step()
    op.add_column("job", sa.Column("mood", sa.String(), nullable=False, server_default="calm"))
    step()
    op.create_table("extra", sa.Column("job_id", sa.String(), primary_key=True), sa.Column("writes", sa.Integer()))
    step()
    for _ in range(4):
        op.execute("UPDATE job SET note = note || '!'")
        step()
    with op.batch_alter_table("job") as batch:
        batch.drop_column("key_sha256")
    step()
    op.execute("INSERT INTO extra SELECT id, (SELECT count(*) FROM audit) FROM job")
    step()
"""
STEPS = 9


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> History:
    """The history of a later version of this program."""
    folder = tmp_path_factory.mktemp("newer") / "migrations"
    shutil.copytree(HISTORY.folder, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "later_slow.py").write_text(_SLOW.replace("HEAD", HISTORY.head))
    return History(folder, (*HISTORY.revisions, "later"))


class Nursery:
    """Where processes are started that migrate."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def _ask(self, **order: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, path: Path, history: History, count: int = 1, *, plain: bool = False) -> list[int]:
        folder = str(history.folder)
        return self._ask(path=str(path), folder=folder, revisions=history.revisions, count=count, plain=plain)

    def wait(self, pid: int) -> int:
        return self._ask(wait=pid)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    script = Path(__file__).with_name("nursery.py")
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Nursery(process)


@pytest.fixture
def old(path: Path, add_job: Callable[..., str]) -> Path:
    """A database of the version before, with jobs and an attempt that refers to one."""
    database = Database(f"sqlite:///{path}")
    with database.write() as connection:
        for number in range(JOBS):
            add_job(connection, f"j{number:04}", note="n" * 200)
        connection.exec_driver_sql(
            "INSERT INTO progress (job_id, step, total_steps, rev) SELECT id, 7, 9, rowid FROM job"
        )
    database.close()
    return path


def assert_old(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        assert "extra" not in tables
        assert not any(name.startswith("_alembic_tmp") for name in tables)
        columns = {row[1] for row in connection.execute("PRAGMA table_info(job)")}
        assert "mood" not in columns
        assert "key_sha256" in columns
        notes = connection.execute("SELECT note, count(*) FROM job GROUP BY note").fetchall()
        assert notes == [("n" * 200, JOBS)]
        assert connection.execute("SELECT count(*) FROM progress WHERE step = 7").fetchone() == (JOBS,)


def assert_new(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchone() is None
        assert connection.execute("SELECT count(*) FROM extra").fetchone() == (JOBS,)
        notes = connection.execute("SELECT note, mood, count(*) FROM job GROUP BY note, mood").fetchall()
        assert notes == [("n" * 200 + "!!!!", "calm", JOBS)]
        assert "key_sha256" not in {row[1] for row in connection.execute("PRAGMA table_info(job)")}
        # The rebuilt table did not take along the rows that refer to it.
        assert connection.execute("SELECT count(*) FROM progress WHERE step = 7").fetchone() == (JOBS,)


def test_a_first_start_in_four_processes_at_once(nursery: Nursery, tmp_path: Path) -> None:
    for round_ in range(max(2, ROUNDS // 4)):
        path = tmp_path / str(round_) / "new" / "ainfinity.db"
        pids = nursery.start(path, HISTORY, count=4)
        assert [nursery.wait(pid) for pid in pids] == [0, 0, 0, 0]
        assert look(path) == HISTORY.head
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT count(*) FROM meta WHERE name = 'installation'").fetchone() == (1,)
            assert connection.execute("SELECT id FROM team").fetchall() == [("local",)]
        assert list_backups(path) == []


def test_an_upgrade_in_four_processes_at_once(nursery: Nursery, old: Path, newer: History) -> None:
    pids = nursery.start(old, newer, count=4)
    assert [nursery.wait(pid) for pid in pids] == [0, 0, 0, 0]
    assert look(old) == "later"
    assert_new(old)
    (backup,) = list_backups(old)
    assert_old(backup)


def test_killed_in_mid_migration_the_old_schema_stays(
    nursery: Nursery, old: Path, newer: History, tmp_path: Path
) -> None:
    """kill -9 at a random step of the revision, or at any moment of the whole run; then the next start works."""
    random_ = random.Random(20)
    marks = newer.folder / "versions" / "marks"
    pristine = shutil.copy(old, tmp_path / "pristine.db")
    began = time.monotonic()
    assert nursery.wait(nursery.start(old, newer)[0]) == 0
    duration = time.monotonic() - began
    killed_inside = 0
    for round_ in range(ROUNDS):
        if look(old) != HISTORY.head:
            for leftover in ("", "-wal", "-shm"):
                Path(f"{old}{leftover}").unlink(missing_ok=True)
            shutil.copy(pristine, old)
        marks.unlink(missing_ok=True)
        (pid,) = nursery.start(old, newer)
        if round_ % 2:
            time.sleep(random_.uniform(0, duration))
        else:
            wanted, deadline = random_.randint(1, STEPS), time.monotonic() + 60
            while time.monotonic() < deadline and not (marks.exists() and marks.stat().st_size >= wanted):
                time.sleep(0.0005)
            time.sleep(random_.uniform(0, 0.004))
        os.kill(pid, signal.SIGKILL)
        ended = nursery.wait(pid)
        version = look(old)
        assert version in newer.revisions
        (assert_old if version == HISTORY.head else assert_new)(old)
        if version == HISTORY.head and marks.exists():
            assert ended == -signal.SIGKILL
            killed_inside += 1
    print(f"{ROUNDS} kills, {killed_inside} of them between the first step and the commit")
    assert killed_inside >= ROUNDS // 3
    assert nursery.wait(nursery.start(old, newer)[0]) == 0
    assert look(old) == "later"
    assert_new(old)
    backups = list_backups(old)
    assert 1 <= len(backups) <= KEEP
    assert_old(backups[-1])
    assert {entry.suffix for entry in backups[0].parent.iterdir()} == {".db"}


def test_killed_in_a_plain_migration_the_schema_is_half_done(nursery: Nursery, old: Path, newer: History) -> None:
    """The negative control: with Alembic on SQLAlchemy's defaults the same kill is seen."""
    marks = newer.folder / "versions" / "marks"
    marks.unlink(missing_ok=True)
    (pid,) = nursery.start(old, newer, plain=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (marks.exists() and marks.stat().st_size >= 4):
        time.sleep(0.0005)
    os.kill(pid, signal.SIGKILL)
    assert nursery.wait(pid) == -signal.SIGKILL
    assert look(old) == HISTORY.head
    with pytest.raises(AssertionError, match="extra"):
        assert_old(old)


# A worker of the older version: writes under the check, as fast as it can, until it sees the newer schema.
_OLDER_WORKER = """
    import sys, time
    from pathlib import Path
    from ainfinity.core.exceptions import DatabaseNewer
    from ainfinity.store.database import Database
    from ainfinity.store.migrate import check_version
    from ainfinity.store.tables import core

    database, guarded, end = Database(sys.argv[1]), sys.argv[2] == "guarded", Path(sys.argv[3])
    writes = last = 0
    try:
        while not last:
            last = end.exists()
            with database.write() as connection:
                if guarded:
                    check_version(connection)
                row = dict(at=time.time(), actor="older", action="write", subject=str(writes), detail={})
                connection.execute(core("audit").insert().values(row))
                connection.execute(core("job").update().values(priority=writes % 7))
            writes += 1
            if writes == 20:
                print("busy", flush=True)
            time.sleep(0.001)
    except DatabaseNewer as error:
        print(error.code, writes, flush=True)
        sys.exit(error.exit_code)
    print("never saw it", writes, flush=True)
"""


@pytest.mark.parametrize("mode", ["guarded", "unguarded"])
def test_an_upgrade_while_an_older_worker_works(old: Path, newer: History, tmp_path: Path, mode: str) -> None:
    """The older worker leaves at its next write and changes nothing after the upgrade. Unguarded, it would."""
    script = textwrap.dedent(_OLDER_WORKER)
    command = [sys.executable, "-c", script, f"sqlite:///{old}", mode, str(tmp_path / "end")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout
        try:
            assert worker.stdout.readline() == "busy\n"
            ensure_schema(old, history=newer)
            with contextlib.closing(sqlite3.connect(old)) as connection:
                (at_upgrade,) = connection.execute("SELECT max(writes) FROM extra").fetchone()
                assert at_upgrade >= 20
                if mode == "guarded":
                    assert worker.stdout.readline() == f"database_newer {at_upgrade}\n"
                    assert worker.wait(30) == 4
                    assert connection.execute("SELECT count(*) FROM audit").fetchone() == (at_upgrade,)
                else:
                    (tmp_path / "end").touch()
                    assert worker.stdout.readline().startswith("never saw it")
                    assert connection.execute("SELECT count(*) FROM audit").fetchone()[0] > at_upgrade
        finally:
            worker.kill()
    assert_new(old)

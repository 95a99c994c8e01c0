"""The fast reads give what the real queries give, fast, from the stdlib alone."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ainfinity.core.exceptions import DatabaseBroken, DatabaseLocked, DatabaseNewer, DatabaseOlder
from ainfinity.engine import fence
from ainfinity.schema.states import JobState
from ainfinity.schema.views import JobQuery, Progress, WorkerStatus
from ainfinity.store import jobs, lease, peek, progress
from ainfinity.store.database import Database
from ainfinity.store.migrate import HEAD, HISTORY, History, must_be_current
from ainfinity.store.peek import jobs_sql, peek_counts, peek_jobs, peek_names, peek_worker
from ainfinity.store.tables import core

# --- equal to the real query

_TAGS = ["a", "A", "ab", "team=ä", "x/y", "50%", "a_b", "😀"]
_TEXTS = ["", "a", "A", "run", "50%", "a_b", "ab", "\\", "Ä", "ä", "'", '"', "\n", "😀", "%", "_"]

_JOB = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["run", "run-1", "train", "a", "ab"]),
        "state": st.sampled_from([str(state) for state in JobState]),
        "desired": st.sampled_from(["run", "cancel"]),
        "owner": st.sampled_from(["local:me", "local:you", "slack:T1/U2"]),
        "model": st.sampled_from(["tiny", "org/Model-1"]),
        "infra": st.sampled_from(["local", "slurm/big"]),
        "gpus": st.sampled_from(["", "H100:8"]),
        "priority": st.integers(-3, 3),
        "tags": st.lists(st.sampled_from(_TAGS), max_size=3, unique=True),
        "note": st.text(st.sampled_from("aAbÄ%_\\'\"\n😀 "), max_size=5),
        "attempt": st.integers(0, 3),
        "submitted_at": st.sampled_from([1.0, 2.5, 1e9, 1e9 + 1e-6]),
        "started_at": st.one_of(st.none(), st.floats(0, 1e10)),
        "finished_at": st.one_of(st.none(), st.floats(0, 1e10)),
        "stale_since": st.one_of(st.none(), st.floats(0, 1e10)),
        "error_code": st.sampled_from(["", "oom"]),
        "error_message": st.text(max_size=5),
        "seq": st.integers(0, 99),
        "price_per_hour": st.sampled_from([None, 0.0, 2.5]),
        "priced_from": st.sampled_from([None, 0.0, 1e9]),
        "spent": st.sampled_from([None, 0.0, 7.25]),
        "kept_until": st.one_of(st.none(), st.floats(0, 1e10)),
        "stuck_since": st.one_of(st.none(), st.floats(0, 1e10)),
        "origin": st.sampled_from(["", "cluster:theirs"]),
        "claimed": st.booleans(),
    }
)
_NUMBER = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))
_PROGRESS = st.one_of(
    st.none(), st.builds(Progress, st.integers(0, 9), st.integers(0, 9), _NUMBER, _NUMBER, _NUMBER, _NUMBER, _NUMBER)
)
_QUERY = st.builds(
    JobQuery,
    states=st.lists(st.sampled_from([str(state) for state in JobState]), max_size=6, unique=True).map(tuple),
    tags=st.lists(st.sampled_from([*_TAGS, "none", '"']), max_size=2).map(tuple),
    owner=st.sampled_from(["", "", "", "local:me", "local:you"]),
    text=st.one_of(st.just(""), st.sampled_from(_TEXTS)),
    limit=st.one_of(st.none(), st.integers(0, 5), st.just(50)),
    before=st.one_of(st.none(), st.tuples(st.sampled_from([1.0, 2.5, 1e9]), st.sampled_from(["", "j3", "z"]))),
)


@pytest.fixture(scope="module")
def shared(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    path = tmp_path_factory.mktemp("peek") / "ainfinity.db"
    path.write_bytes(template.read_bytes())
    opened = Database(f"sqlite:///{path}")
    yield opened
    opened.close()


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(_JOB, _PROGRESS), max_size=12), st.lists(_QUERY, min_size=1, max_size=6))
def test_it_gives_what_the_real_query_gives(
    shared: Database,
    add_job: Callable[..., str],
    rows: list[tuple[dict[str, Any], Progress | None]],
    queries: list[JobQuery],
) -> None:
    assert shared.path
    with shared.write() as connection:
        for name in ("progress", "job"):
            connection.execute(core(name).delete())
        for number, (values, found) in enumerate(rows):
            add_job(connection, f"j{number}", **values)
            if found is not None:
                progress.put(connection, f"j{number}", found)
    with shared.read() as connection:
        for query in queries:
            assert peek_jobs(shared.path, query, now=1e9 + 60) == jobs.query(connection, query, now=1e9 + 60)


def test_the_comparison_would_see_a_difference(shared: Database, add_job: Callable[..., str]) -> None:
    """The negative control: rows that differ in one field are not equal, down to the progress."""
    assert shared.path
    with shared.write() as connection:
        for name in ("progress", "job"):
            connection.execute(core(name).delete())
        add_job(connection, "a", tags=["x"])
        progress.put(connection, "a", Progress(step=1))
    (row,) = peek_jobs(shared.path, JobQuery())
    assert row == replace(row)
    assert row.tags == ("x",)
    assert row.progress.step == 1
    for changed in ({"tags": ("y",)}, {"progress": Progress(step=2)}, {"note": "other"}):
        assert row != replace(row, **changed)


# --- the other reads


@pytest.fixture
def filled(path: Path, database: Database, add_job: Callable[..., str]) -> Path:
    with database.write() as connection:
        add_job(connection, "a", name="run", state="running", submitted_at=1.0)
        add_job(connection, "b", name="run-2", state="queued", submitted_at=2.0)
        add_job(connection, "c", name="other", state="awaiting_approval", submitted_at=3.0)
        add_job(connection, "d", name="run", state="failed", submitted_at=4.0)
    return path


def test_names_begin_with_the_prefix_the_newest_first(filled: Path) -> None:
    assert peek_names(filled, "") == ["run", "other", "run-2"]
    assert peek_names(filled, "run") == ["run", "run-2"]
    assert peek_names(filled, "run-") == ["run-2"]
    assert peek_names(filled, "", limit=1) == ["run"]
    assert peek_names(filled, "%") == []


def test_counts(filled: Path) -> None:
    assert peek_counts(filled) == {"awaiting_approval": 1, "failed": 1, "queued": 1, "running": 1}


def test_the_worker_is_whoever_holds_the_engines_lease(filled: Path, database: Database) -> None:
    assert fence.LEASE == peek.ENGINE_LEASE
    assert peek_worker(filled, 5.0) == WorkerStatus(False, "", 0, 0.0, 2)
    with database.write() as connection:
        assert jobs.live_work_count(connection) == 2
        lease.acquire(connection, fence.LEASE, "host:1", 5.0, 10.0, "0.1.0")
    assert peek_worker(filled, 14.9) == WorkerStatus(True, "host:1", 1, 15.0, 2, "0.1.0")
    assert not peek_worker(filled, 15.0).alive
    with database.write() as connection:
        lease.release(connection, fence.LEASE, "host:1", 1)
    assert not peek_worker(filled, 5.0).alive


def test_what_does_not_exist_is_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    for path in (tmp_path / "none.db", tmp_path / "no" / "folder.db", tmp_path / "empty.db"):
        assert peek_jobs(path, JobQuery()) == []
        assert peek_names(path, "") == []
        assert peek_counts(path) == {}
        assert peek_worker(path, 0.0) == WorkerStatus(False, "", 0, 0.0, 0)
    assert not (tmp_path / "none.db").exists()


def set_version(path: Path, version: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
        connection.commit()


def test_other_schemas_are_told(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_version(path, "0099")
    with pytest.raises(DatabaseNewer):
        peek_jobs(path, JobQuery())
    set_version(path, HEAD)
    later = History(tmp_path, (*HISTORY.revisions, "later"))
    monkeypatch.setattr(peek, "must_be_current", partial(must_be_current, history=later))
    with pytest.raises(DatabaseOlder, match="brings it up to date"):
        peek_names(path, "")


def test_a_lock_and_rubbish_are_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peek, "_PATIENCE", 0.01)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("DELETE FROM progress")
        with pytest.raises(DatabaseLocked):
            peek_jobs(path, JobQuery())
    path.write_bytes(b"rubbish" * 1000)
    with pytest.raises(DatabaseBroken):
        peek_jobs(path, JobQuery())


# --- fast


@pytest.fixture(scope="module")
def large(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10,000 jobs with specs of a usual size, half of them with progress."""
    path = tmp_path_factory.mktemp("large") / "ainfinity.db"
    path.write_bytes(template.read_bytes())
    database = Database(f"sqlite:///{path}")
    states = [str(state) for state in JobState]
    base = {"owner": "local:me", "model": "tiny", "infra": "local", "desired": "run", "result": {}, "note": "a note"}
    rows = [
        base
        | {
            "id": f"job{number:05}",
            "key": f"key{number}",
            "name": f"run-{number % 500}",
            "state": states[number % len(states)],
            "submitted_at": float(number),
            "tags": [f"t{number % 9}"],
            "spec": {"recipe": "x" * 3000},
        }
        for number in range(10_000)
    ]
    with database.write() as connection:
        connection.execute(core("job").insert(), rows)
        progress.put_many(connection, {row["id"]: Progress(step=5) for row in rows[::2]})
    database.close()
    return path


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (JobQuery(), "ix_job_submitted"),
        (JobQuery(before=(5000.0, "job05000")), "ix_job_submitted"),
        (JobQuery(states=("running", "recovering")), "ix_job_state"),
    ],
)
def test_lists_go_by_an_index(large: Path, query: JobQuery, index: str) -> None:
    sql, values = jobs_sql(query)
    with contextlib.closing(sqlite3.connect(large)) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    assert f"INDEX {index}" in plan[0]
    assert any(step.startswith("SEARCH p USING INDEX") for step in plan)
    if index == "ix_job_submitted":
        assert not any("TEMP B-TREE" in step for step in plan)


def test_it_needs_the_stdlib_only(large: Path) -> None:
    script = """
import sys
from pathlib import Path
from ainfinity.client.port import JobQuery
from ainfinity.store.migrate import HEAD, HISTORY, History, must_be_current
from ainfinity.store.peek import peek_counts, peek_jobs, peek_names, peek_worker
path = Path(sys.argv[1])
assert len(peek_jobs(path, JobQuery())) == 50
assert peek_names(path, "run") and peek_counts(path) and not peek_worker(path, 0.0).alive
heavy = {"sqlmodel", "sqlalchemy", "alembic", "pydantic", "textual", "typer", "torch", "sky"}
print(sorted({name.partition(".")[0] for name in sys.modules} & heavy))
import pydantic
assert {name.partition(".")[0] for name in sys.modules} & heavy == {"pydantic"}
"""
    command = [sys.executable, "-c", script, str(large)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "[]\n"

"""Upgrades of real older databases: what was stored stays, and means what its events fold to now."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from ainfinity.domain.fold import fold
from ainfinity.schema.event import EventType
from ainfinity.schema.views import JobQuery
from ainfinity.store import events, jobs
from ainfinity.store.backup import list_backups
from ainfinity.store.database import Database
from ainfinity.store.events import ATTEMPT, JOB, attempt_fold, job_fold
from ainfinity.store.migrate import HISTORY, History, ensure_schema, look
from ainfinity.store.peek import peek_jobs

E = EventType
LAUNCHED: tuple[tuple[EventType, dict[str, Any]], ...] = (
    (E.SUBMITTED, {}),
    (E.PLANNED, {"plan_hash": "p"}),
    (E.APPROVED, {"plan_hash": "p"}),
    (E.QUEUED, {}),
    (E.ATTEMPT_INTENDED, {"deadline": None}),
    (E.ATTEMPT_LAUNCHED, {"handle": "h"}),
)
RUNNING = (*LAUNCHED, (E.ATTEMPT_RUNNING, {}), (E.TRAINER_STARTED, {"total_steps": 9}))
#: What jobs of the first schema did, by id.
LIVES: dict[str, tuple[tuple[EventType, dict[str, Any]], ...]] = {
    "aaaaaaaaaa": LAUNCHED[:4],
    "bbbbbbbbbb": LAUNCHED,
    "cccccccccc": RUNNING,
    "dddddddddd": (*RUNNING, (E.TRAINER_FINISHED, {}), (E.ATTEMPT_SUCCEEDED, {"exit_code": 0}), (E.SUCCEEDED, {})),
    "eeeeeeeeee": (*RUNNING, (E.ATTEMPT_FAILED, {"code": "oom", "exit_code": 1}), (E.FAILED, {"code": "oom"})),
}


def insert(connection: sqlite3.Connection, table: str, values: dict[str, Any]) -> None:
    given = {name: json.dumps(value) if isinstance(value, (dict, list)) else value for name, value in values.items()}
    marks = ", ".join("?" * len(given))
    connection.execute(f"INSERT INTO {table} ({', '.join(given)}) VALUES ({marks})", list(given.values()))


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A database as the first schema left it, with jobs in several states; written without any code of today."""
    folder = tmp_path / "migrations"
    shutil.copytree(HISTORY.folder, folder, ignore=shutil.ignore_patterns("__pycache__", "000[2-9]*"))
    path = tmp_path / "ainfinity.db"
    ensure_schema(path, history=History(folder, ("0001",)))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        seq = 0
        for job_id, life in LIVES.items():
            began = seq
            mine: list[tuple[int, str, int, dict[str, Any]]] = []
            for kind, data in life:
                seq += 1
                number = 1 if kind.startswith(("attempt.", "trainer.")) else 0
                more = {"name": f"ain-0-{job_id}-a1", "backend": "local"} if kind == E.ATTEMPT_INTENDED else {}
                mine.append((seq, str(kind), number, dict(data) | more))
            state = {4: "queued", 6: "launching", 8: "running"}.get(len(life), str(life[-1][0]).split(".")[1])
            kinds = {kind: float(at) for at, kind, _, _ in mine}
            over = kinds.get(f"job.{state}") if len(life) > 8 else None
            insert(connection, "job", {
                "id": job_id, "key": f"key-{job_id}", "key_sha256": "", "name": job_id, "owner": "local:ann",
                "team": "local", "model": "tiny", "infra": "local", "gpus": "", "slots": 1, "priority": 0,
                "tags": ["a"], "note": "", "notify": "finish", "state": state, "desired": "run",
                "attempt": int(len(life) > 4),
                "plan_hash": "p", "approved_hash": "p", "submitted_at": float(began + 1), "queued_at": float(began + 4),
                "started_at": kinds.get("attempt.running"), "finished_at": over,
                "error_code": "oom" if state == "failed" else "", "error_message": "", "failures": 0, "losses": 0,
                "seq": seq, "spec": {"name": job_id, "note": "ü"},
                "result": {
                    name: next(data for _, kind, _, data in mine if kind == f"trainer.{name}")
                    for name in ("started", "finished") if f"trainer.{name}" in kinds
                },
            })  # fmt: skip
            for at, kind, number, data in mine:
                values = {"seq": at, "job_id": job_id, "attempt": number, "type": kind, "at": float(at)}
                insert(connection, "event", values | {"actor": "engine", "data": data})
            if len(life) > 4:
                insert(connection, "attempt", {
                    "job_id": job_id, "number": 1, "name": f"ain-0-{job_id}-a1", "state": state, "backend": "local",
                    "handle": "h", "intent_at": kinds["attempt.intended"], "calls": 1,
                    "started_at": kinds.get("attempt.running"), "finished_at": kinds.get(f"attempt.{state}")
                    if over else None, "exit_code": {"succeeded": 0, "failed": 1}.get(state), "outcome": "",
                    "code": "oom" if state == "failed" else "", "reason": "",
                    "trainer_end": "finished" if state == "succeeded" else "", "trainer_code": "",
                    "trainer_message": "", "provenance": {}, "seq": seq, "log_offset": 77, "line_seq": 3,
                })  # fmt: skip
        connection.commit()
    return path


def test_a_database_of_the_first_schema_is_what_its_events_say(first: Path) -> None:
    ensure_schema(first)
    assert look(first) == HISTORY.head
    (backup,) = list_backups(first)
    assert look(backup) == "0001"
    database = Database(f"sqlite:///{first}")
    with database.read() as connection:
        for row in connection.execute(JOB.select()).all():
            job, attempts = fold(row.id, events.read(connection, row.id))
            assert job_fold(row) == job
            assert row.spec == {"name": row.id, "note": "ü"}
            for number, attempt in attempts.items():
                place = (ATTEMPT.c.job_id == row.id) & (ATTEMPT.c.number == number)
                stored = connection.execute(ATTEMPT.select().where(place)).one()
                assert attempt_fold(stored) == attempt
                assert (stored.log_offset, stored.line_seq) == (77, 3)
        assert connection.exec_driver_sql("SELECT count(*) FROM job").scalar_one() == len(LIVES)
        # What ran here cost nothing, and that is known.
        rows = jobs.query(connection, JobQuery(), now=1000.0)
        assert {row.cost for row in rows} == {0.0}
    database.close()
    assert peek_jobs(first, JobQuery(), now=1000.0) == rows


def test_the_comparison_would_see_a_forgotten_column(first: Path) -> None:
    """The negative control: a running job whose meter the upgrade forgot is not what its events fold to."""
    ensure_schema(first)
    database = Database(f"sqlite:///{first}")
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE attempt SET paid_from = NULL, priced_from = NULL")
        row = connection.execute(ATTEMPT.select().where(ATTEMPT.c.job_id == "cccccccccc")).one()
        _, attempts = fold(row.job_id, events.read(connection, row.job_id))
        assert attempt_fold(row) != attempts[1]
    database.close()

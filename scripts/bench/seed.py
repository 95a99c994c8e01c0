"""A store with many jobs, as months of use would leave it."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ainfinity.core.clock import SystemClock
from ainfinity.domain.places import backend_of
from ainfinity.schema.event import EventType
from ainfinity.schema.states import AttemptState, Desired, JobState
from ainfinity.schema.training_job import JobSpec
from ainfinity.store import jobs
from ainfinity.store.database import Database
from ainfinity.store.events import ATTEMPT, EVENT, JOB
from ainfinity.store.jobs import PROGRESS
from ainfinity.store.migrate import ensure_schema
from ainfinity.store.store import Store

NOW = 1_750_000_000.0
_OVER = (JobState.SUCCEEDED, JobState.SUCCEEDED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


def make_store(path: Path, count: int, *, live: bool = False, infra: str = "local") -> Store:
    """Create a database with `count` jobs: all running, or all over. The newest one's name ends in -newest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ensure_schema(path)
    store = Store(Database(f"sqlite:///{path}"), SystemClock())
    with store.write() as connection:
        installation = jobs.installation(connection)
        rows = list(_rows(count, live, installation, infra))
        for table, part in ((JOB, 0), (ATTEMPT, 1), (PROGRESS, 2), (EVENT, 3)):
            connection.execute(table.insert(), [row[part] for row in rows])
    with store.database.engine.connect() as connection:
        connection.exec_driver_sql("ANALYZE")
    return store


def _rows(count: int, live: bool, installation: str, infra: str) -> Iterator[tuple[dict[str, Any], ...]]:
    chance = random.Random(7)
    recipe = {"model": "org/model-8b", "data": "/data/chats.jsonl"}
    spec = JobSpec.model_validate({"name": "seeded", "recipe": recipe, "resources": {"infra": infra}})
    content = spec.as_json()
    for index in range(count):
        job_id = base64.b32encode(chance.randbytes(7)).decode().lower()[:10]
        newest = index == count - 1
        state = JobState.RUNNING if live else chance.choice(_OVER)
        at = NOW + 60.0 * index
        finished = None if live else at + 3000
        name = f"tune-{index:05}{'-newest' if newest else ''}"
        job: dict[str, Any] = {
            "id": job_id, "key": job_id, "name": name, "owner": "local:me", "model": "org/model-8b", "infra": infra,
            "tags": ["seeded"], "spec": content | {"name": name}, "state": str(state), "desired": str(Desired.RUN),
            "attempt": 1, "submitted_at": at, "started_at": at + 5, "finished_at": finished, "seq": index + 1,
            "error_code": "internal" if state == JobState.FAILED else "", "result": {},
        }  # fmt: skip
        attempt: dict[str, Any] = {
            "job_id": job_id, "number": 1, "name": f"ain-{installation}-{job_id}-a1", "backend": backend_of(infra),
            "state": str(AttemptState.RUNNING if live else AttemptState.SUCCEEDED), "handle": "x", "intent_at": at,
            "started_at": at + 5, "finished_at": finished, "seq": index + 1, "provenance": {},
        }  # fmt: skip
        progress: dict[str, Any] = {
            "job_id": job_id,
            "step": 90,
            "total_steps": 100,
            "loss": 1.25,
            "updated_at": at,
            "rev": index + 1,
        }
        event: dict[str, Any] = {
            "seq": index + 1, "job_id": job_id, "attempt": 1, "type": str(EventType.ATTEMPT_RUNNING), "at": at,
            "actor": "engine", "data": {},
        }  # fmt: skip
        yield job, attempt, progress, event

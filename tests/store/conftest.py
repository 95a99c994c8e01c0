"""A migrated database for each test, and jobs to put into it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Connection

from ainfinity.store import jobs
from ainfinity.store.database import Database
from ainfinity.store.migrate import ensure_schema


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as a first start leaves it. Copy it, do not write to it."""
    path = tmp_path_factory.mktemp("template") / "ainfinity.db"
    ensure_schema(path)
    assert not path.with_name("ainfinity.db-wal").exists() or not path.with_name("ainfinity.db-wal").stat().st_size
    return path


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(template, tmp_path / "ainfinity.db"))


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{path}")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def add_job() -> Callable[..., str]:
    """Insert a job row; `add_job(connection, "a", state="queued")` gives its id."""

    def add(connection: Connection, job_id: str, **values: Any) -> str:
        given = {
            "id": job_id,
            "key": f"key-{job_id}",
            "name": f"name-{job_id}",
            "owner": "local:me",
            "model": "tiny",
            "infra": "local",
            "state": "queued",
            "desired": "run",
            "submitted_at": 1000.0,
        }
        jobs.insert(connection, given | values)
        return job_id

    return add

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ainfinity.schema.views import Progress
from ainfinity.store import jobs, progress
from ainfinity.store.database import Database


@pytest.fixture
def written(database: Database, add_job: Callable[..., str]) -> Database:
    with database.write() as connection:
        for job_id in "abc":
            add_job(connection, job_id)
    return database


def test_put_replaces_and_counts_up(written: Database) -> None:
    first = Progress(step=1, total_steps=9, loss=2.5, lr=1e-4, tokens_per_second=10.0, eta_seconds=8.0, updated_at=5.0)
    with written.write() as connection:
        assert progress.latest_rev(connection) == 0
        assert progress.put(connection, "a", first) == 1
        assert progress.put(connection, "a", replace(first, step=2, loss=None, rev=77)) == 2
        assert progress.since(connection, 0) == [("a", replace(first, step=2, loss=None, rev=2))]
        assert progress.since(connection, 2) == []
        assert jobs.get(connection, "a").progress == replace(first, step=2, loss=None, rev=2)
        assert jobs.get(connection, "b").progress == Progress()


def test_many_share_one_revision(written: Database) -> None:
    with written.write() as connection:
        progress.put(connection, "b", Progress(step=1))
        assert progress.put_many(connection, {"c": Progress(step=3), "a": Progress(step=4), "b": Progress(step=5)}) == 2
        assert progress.since(connection, 1) == [
            ("a", Progress(step=4, rev=2)),
            ("b", Progress(step=5, rev=2)),
            ("c", Progress(step=3, rev=2)),
        ]
        assert progress.put_many(connection, {}) == 2


def test_a_revision_never_comes_twice_even_after_a_removal(written: Database) -> None:
    """Else a front whose cursor is beyond it would never hear of the next change."""
    with written.write() as connection:
        progress.put(connection, "a", Progress(step=1))
        seen = progress.put(connection, "b", Progress(step=2))
        jobs.delete(connection, "b")
        assert progress.latest_rev(connection) == seen
        assert progress.put(connection, "a", Progress(step=3)) == seen + 1
        jobs.delete(connection, "a")
        jobs.delete(connection, "c")
        assert progress.latest_rev(connection) == seen + 1
        assert progress.since(connection, 0) == []


def test_what_changed_is_found_by_an_index(written: Database) -> None:
    with written.read() as connection:
        plan = connection.exec_driver_sql("EXPLAIN QUERY PLAN SELECT * FROM progress WHERE rev > 5 ORDER BY rev").all()
    assert "ix_progress_rev" in plan[0][3]

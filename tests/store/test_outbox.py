from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.engine import Connection

from ainfinity.schema.event import Event, EventType
from ainfinity.store import events, outbox
from ainfinity.store.database import Database


@pytest.fixture
def owing(database: Database, add_job: Callable[..., str]) -> Database:
    """Three jobs have ended, each of which is owed to a file and to Slack."""
    with database.write() as connection:
        for number, job_id in enumerate("abc"):
            add_job(connection, job_id, state="running")
            ended = Event(EventType.SUCCEEDED, job_id, 100.0 + number, "engine")
            events.append(connection, [ended], places=("file", "slack"))
    return database


def ids(claims: list[outbox.Claim]) -> list[str]:
    return [one.job_id for one in claims]


def state_of(connection: Connection, delivery: int) -> tuple[str, str]:
    row = connection.exec_driver_sql("SELECT state, detail FROM delivery WHERE id = ?", (delivery,)).one()
    return row.state, row.detail


def test_a_claim_is_of_one_place_due_and_in_order(owing: Database) -> None:
    with owing.write() as connection:
        assert not outbox.is_due(connection, "file", 99.0)
        assert outbox.is_due(connection, "file", 101.0)
        assert ids(outbox.claim(connection, "file", 101.0, 60.0, 10)) == ["a", "b"]
        assert ids(outbox.claim(connection, "file", 105.0, 60.0, 10)) == ["c"]
        assert not outbox.is_due(connection, "file", 105.0)
        assert ids(outbox.claim(connection, "slack", 105.0, 60.0, 2)) == ["a", "b"]
        assert outbox.owed(connection) == 6
        assert outbox.owed(connection, "file") == 3
        assert outbox.claim(connection, "nowhere", 105.0, 60.0, 10) == []


def test_a_claim_names_its_event(owing: Database) -> None:
    with owing.write() as connection:
        (claim,) = outbox.claim(connection, "file", 100.0, 60.0, 10)
        (event,) = events.read(connection, "a")
        assert (claim.place, claim.event_seq, claim.tries) == ("file", event.seq, 1)


def test_what_was_sent_is_never_owed_again(owing: Database) -> None:
    with owing.write() as connection:
        (claim,) = outbox.claim(connection, "file", 100.0, 60.0, 10)
        assert outbox.settle(connection, claim.id, True, 101.0, "ok")
        assert state_of(connection, claim.id) == ("sent", "ok")
        assert not outbox.settle(connection, claim.id, False, 101.0, "late")
        assert state_of(connection, claim.id) == ("sent", "ok")
        assert "a" not in ids(outbox.claim(connection, "file", 9e9, 60.0, 10))


def test_a_dead_owners_claim_runs_out(owing: Database) -> None:
    with owing.write() as connection:
        (first,) = outbox.claim(connection, "file", 100.0, 60.0, 1)
        assert "a" not in ids(outbox.claim(connection, "file", 159.9, 60.0, 10))
        (again,) = outbox.claim(connection, "file", 160.0, 60.0, 1)
        assert (again.id, again.tries) == (first.id, 1), "nobody tried"


def test_a_failure_is_told_again_later_and_given_up_in_the_end(owing: Database) -> None:
    now, waits = 100.0, []
    with owing.write() as connection:
        while True:
            due = connection.exec_driver_sql("SELECT due_at FROM delivery WHERE job_id = 'a' AND place = 'file'")
            wait = max(0.0, due.scalar_one() - now)
            if wait:
                assert "a" not in ids(outbox.claim(connection, "file", now + wait - 0.01, 0.0, 10))
            waits.append(wait)
            now += wait
            claim = outbox.claim(connection, "file", now, 60.0, 1)[0]
            assert claim.job_id == "a"
            outbox.settle(connection, claim.id, False, now, f"no {claim.tries}", max_tries=5, backoff=3.0)
            if state_of(connection, claim.id)[0] == "failed":
                break
        assert waits == [0.0, 3.0, 6.0, 12.0, 24.0]
        assert state_of(connection, claim.id) == ("failed", "no 5")
        assert outbox.owed(connection, "file") == 2
        assert not outbox.settle(connection, claim.id, True, now)
        assert not outbox.settle(connection, 9999, True, now)


def test_the_longest_wait_is_an_hour(owing: Database) -> None:
    with owing.write() as connection:
        connection.exec_driver_sql("UPDATE delivery SET tries = 8")
        (claim,) = outbox.claim(connection, "file", 100.0, 60.0, 1)
        outbox.settle(connection, claim.id, False, 100.0, backoff=1000.0)
        due = connection.exec_driver_sql("SELECT due_at FROM delivery WHERE id = ?", (claim.id,)).scalar_one()
    assert due == 3700.0

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ainfinity.core.exceptions import LeaseLost
from ainfinity.store import lease
from ainfinity.store.database import Database

NAME = "engine"


def test_a_lease_nobody_took_is_free(database: Database) -> None:
    with database.read() as connection:
        found = lease.status(connection, NAME)
    assert found == lease.LeaseStatus("", 0, 0.0, "")
    assert not found.alive(0.0)


def test_one_holder_until_it_expires(database: Database) -> None:
    with database.write() as connection:
        assert lease.acquire(connection, NAME, "a", 100.0, 10.0, "0.1.0") == 1
        assert lease.acquire(connection, NAME, "b", 109.9, 10.0) is None
        assert lease.status(connection, NAME) == lease.LeaseStatus("a", 1, 110.0, "0.1.0")
        assert lease.renew(connection, NAME, "a", 1, 109.0, 10.0)
        assert lease.acquire(connection, NAME, "b", 110.0, 10.0) is None
        assert lease.acquire(connection, NAME, "b", 119.0, 10.0) == 2
        assert not lease.renew(connection, NAME, "a", 1, 119.0, 10.0)
        assert not lease.release(connection, NAME, "a", 1)
        with pytest.raises(LeaseLost, match=r"b \(epoch 2\) holds it"):
            lease.check(connection, NAME, "a", 1)
        lease.check(connection, NAME, "b", 2)


def test_leases_of_other_names_are_others(database: Database) -> None:
    with database.write() as connection:
        assert lease.acquire(connection, "one", "a", 0.0, 10.0) == 1
        assert lease.acquire(connection, "two", "b", 0.0, 10.0) == 1


def test_the_epoch_never_repeats(database: Database) -> None:
    """Also over a release, and where a holder takes its own lease again."""
    with database.write() as connection:
        assert lease.acquire(connection, NAME, "a", 0.0, 10.0) == 1
        assert lease.acquire(connection, NAME, "a", 1.0, 10.0) == 2
        assert not lease.release(connection, NAME, "a", 1)
        assert lease.release(connection, NAME, "a", 2)
        assert not lease.status(connection, NAME).alive(1.0)
        with pytest.raises(LeaseLost, match="nobody"):
            lease.check(connection, NAME, "a", 2)
        assert lease.acquire(connection, NAME, "b", 1.0, 10.0) == 3


def test_a_late_holder_goes_on_where_nobody_took_over(database: Database) -> None:
    with database.write() as connection:
        lease.acquire(connection, NAME, "a", 0.0, 10.0)
        lease.check(connection, NAME, "a", 1)
        assert lease.renew(connection, NAME, "a", 1, 500.0, 10.0)


_STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["acquire", "renew", "release", "check"]), st.integers(0, 12)),
    max_size=40,
)


@pytest.fixture(scope="module")
def module_database(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    folder = tmp_path_factory.mktemp("lease")
    (folder / "x.db").write_bytes(template.read_bytes())
    opened = Database(f"sqlite:///{folder / 'x.db'}")
    yield opened
    opened.close()


class _Undo(Exception):
    pass


@settings(max_examples=80, deadline=None)
@given(_STEPS)
def test_at_most_one_may_act(module_database: Database, steps: list[tuple[str, str, int]]) -> None:
    """Over random histories: only the last one who acquired passes the check, and nobody takes a live lease."""
    now, owner, expires, epochs = 0.0, "", 0.0, dict.fromkeys("abc", 0)
    with contextlib.suppress(_Undo), module_database.write() as connection:
        for who, what, seconds in steps:
            now += seconds
            if what == "acquire":
                epoch = lease.acquire(connection, NAME, who, now, 10.0)
                assert (epoch is not None) == (owner in ("", who) or now >= expires)
                if epoch is not None:
                    assert epoch > max(epochs.values())
                    owner, expires, epochs[who] = who, now + 10.0, epoch
            elif what == "renew":
                held = lease.renew(connection, NAME, who, epochs[who], now, 10.0)
                assert held == (owner == who)
                expires = now + 10.0 if held else expires
            elif what == "release":
                assert lease.release(connection, NAME, who, epochs[who]) == (owner == who)
                owner = "" if owner == who else owner
            elif owner == who:
                lease.check(connection, NAME, who, epochs[who])
            else:
                with pytest.raises(LeaseLost):
                    lease.check(connection, NAME, who, epochs[who])
        raise _Undo


def test_racing_for_it_gives_one_epoch_to_one(path: Path) -> None:
    """Four connections race 25 times for a free lease: one gets it each time, and no epoch comes twice."""

    def race(who: int) -> list[int | None]:
        mine = Database(f"sqlite:///{path}")
        got: list[int | None] = []
        for round_ in range(25):
            with mine.write() as connection:
                got.append(lease.acquire(connection, f"race-{round_}", f"holder-{who}", 0.0, 10.0))
        mine.close()
        return got

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(race, range(4)))
    for round_ in zip(*results, strict=True):
        assert sorted(round_, key=lambda epoch: epoch or 0) == [None, None, None, 1]


# A worker that takes the lease for 0.3 s, says so, waits for a line, and then writes, guarded or not.
_WORKER = """
    import sys, time
    from ainfinity.core.exceptions import LeaseLost
    from ainfinity.store import lease
    from ainfinity.store.database import Database
    from ainfinity.store.tables import core

    url, guarded = sys.argv[1], sys.argv[2] == "guarded"
    database = Database(url)
    with database.write() as connection:
        epoch = lease.acquire(connection, "engine", "old", time.time(), 0.3)
    print("epoch", epoch, flush=True)
    sys.stdin.readline()
    try:
        with database.write() as connection:
            if guarded:
                lease.check(connection, "engine", "old", epoch)
            connection.execute(core("meta").insert().values(name="written by old", value="x"))
    except LeaseLost:
        print("lost", flush=True)
    else:
        print("wrote", flush=True)
"""


@pytest.mark.parametrize(("mode", "end"), [("guarded", "lost"), ("unguarded", "wrote")])
def test_a_worker_stopped_past_its_expiry_writes_nothing(path: Path, database: Database, mode: str, end: str) -> None:
    """A real process is stopped by SIGSTOP, another takes over, and the first goes on. Unguarded, it would write."""
    command = [sys.executable, "-c", textwrap.dedent(_WORKER), f"sqlite:///{path}", mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as old:
        assert old.stdin
        assert old.stdout
        try:
            assert old.stdout.readline() == "epoch 1\n"
            os.kill(old.pid, signal.SIGSTOP)
            deadline = time.monotonic() + 30
            epoch = None
            while epoch is None and time.monotonic() < deadline:
                with database.write() as connection:
                    epoch = lease.acquire(connection, NAME, "new", time.time(), 60.0)
                time.sleep(0.01)
            assert epoch == 2
            old.stdin.write("go\n")
            old.stdin.flush()
            os.kill(old.pid, signal.SIGCONT)
            assert old.stdout.readline() == f"{end}\n"
        finally:
            old.kill()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM meta WHERE name = 'written by old'").fetchone()
    assert count == (1 if mode == "unguarded" else 0)

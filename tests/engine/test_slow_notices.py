"""A command that is told of things may hang: only its own notices wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ainfinity.core.exceptions import LeaseLost
from ainfinity.engine.outbox import CommandNotifier
from tests.engine.test_rules import Bench
from tests.engine.workshop import PATIENCE, Engine, shop_settings, wait_for
from tests.services.workplace import ADMIN, copy_database


class OnTheTick(CommandNotifier):
    """As commands were told before: by the tick itself."""

    slow = False  # type: ignore[misc]


@pytest.fixture
def bench(tmp_path: Path, template: Path) -> Iterator[Bench]:
    settings = shop_settings(tmp_path)
    copy_database(template, settings.data_dir)
    bench = Bench(tmp_path, settings)
    bench.store.places = ("command",)
    yield bench
    (tmp_path / "go").touch()
    bench.store.close()


def owe(bench: Bench, name: str = "first") -> None:
    bench.service.stop_job(bench.job(name), ADMIN)


def waits(bench: Bench) -> str:
    """A command that says that it began, and then waits until it may end."""
    return f"cat >> {bench.root}/begun; until [ -e {bench.root}/go ]; do sleep 0.02; done"


def engine_with(bench: Bench, command: CommandNotifier) -> Engine:
    engine = bench.engine(bench.fake())
    engine.notifiers.clear()
    engine.notifiers["command"] = command
    return engine


def deliveries(bench: Bench) -> list[tuple[str, int]]:
    with bench.store.read() as connection:
        rows = connection.exec_driver_sql("SELECT state, tries FROM delivery ORDER BY id")
        return [(row.state, row.tries) for row in rows]


def ticks_while_it_hangs(bench: Bench, kind: Callable[[str, float], CommandNotifier]) -> bool:
    """Whether a tick comes to its end while the command of a notice has not."""
    owe(bench)
    with engine_with(bench, kind(waits(bench), PATIENCE)) as engine:
        ticked = threading.Event()

        def tick() -> None:
            engine.tick()
            ticked.set()

        thread = threading.Thread(target=tick)
        thread.start()
        wait_for((bench.root / "begun").exists, "the command to begin")
        free = ticked.wait(5.0 if kind is CommandNotifier else 0.5)
        (bench.root / "go").touch()
        thread.join(PATIENCE)

        def sent() -> bool:
            engine.tick()
            return deliveries(bench) == [("sent", 1)]

        wait_for(sent, "the notice to be settled")
    return free


def test_a_hook_that_hangs_holds_up_no_tick(bench: Bench) -> None:
    assert ticks_while_it_hangs(bench, CommandNotifier)


def test_control_on_the_tick_itself_it_would(bench: Bench) -> None:
    assert not ticks_while_it_hangs(bench, OnTheTick)


def test_a_job_goes_its_way_while_the_hook_hangs(bench: Bench) -> None:
    owe(bench)
    with engine_with(bench, CommandNotifier(waits(bench), PATIENCE)) as engine:
        assert bench.play(engine, bench.job("second"), "succeeded") == "succeeded"
        wait_for((bench.root / "begun").exists, "the command to begin")
        assert deliveries(bench)[0] == ("owed", 0)


def test_a_hook_that_takes_too_long_is_ended_with_all_it_started(bench: Bench) -> None:
    owe(bench)
    pid = bench.root / "pid"
    command = CommandNotifier(f"sleep 300 & echo $! > {pid}; wait", 0.3)
    with engine_with(bench, command) as engine:

        def tried() -> bool:
            engine.tick()
            return deliveries(bench) == [("owed", 1)]

        wait_for(tried, "the command to be given up")
    wait_for(lambda: not runs(int(pid.read_text())), "its child to be gone")


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_worker_that_ends_settles_what_is_being_told(bench: Bench) -> None:
    owe(bench)
    with engine_with(bench, CommandNotifier(waits(bench), PATIENCE)) as engine:
        engine.tick()
        wait_for((bench.root / "begun").exists, "the command to begin")
        owe(bench, "second")
        (bench.root / "go").touch()
        engine.outbox.close()
        assert deliveries(bench) == [("sent", 1), ("owed", 0)]


def test_a_notice_is_claimed_by_one_batch_only(bench: Bench) -> None:
    for number in range(20):
        owe(bench, f"job-{number}")
    out = bench.root / "out"
    with engine_with(bench, CommandNotifier(f"cat >> {out}; echo >> {out}", PATIENCE)) as engine:

        def all_sent() -> bool:
            engine.tick()
            return deliveries(bench) == [("sent", 1)] * 20

        wait_for(all_sent, "all to be told")
    assert len(out.read_text().splitlines()) == 20


def test_a_late_owner_tells_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    owe(bench)
    out = bench.root / "out"

    def lost() -> Any:
        raise LeaseLost("The lease ran out.")

    with engine_with(bench, CommandNotifier(f"touch {out}", PATIENCE)) as engine:
        monkeypatch.setattr(engine.fence, "must_still_hold", lost)

        def told() -> bool:
            try:
                engine.tick()
            except LeaseLost:
                return True
            return False

        wait_for(told, "the tick to hear of it")
    assert not out.exists()
    assert deliveries(bench) == [("owed", 0)]

"""A worker goes only when nothing is live and nothing is owed; a notice is told once, whenever the worker dies."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ainfinity.engine.fence import Fence
from ainfinity.engine.outbox import CommandNotifier
from ainfinity.services.changes import ChangeService
from ainfinity.store import jobs, lease
from ainfinity.store.store import open_store
from ainfinity.worker import Worker
from tests.engine.test_rules import Bench
from tests.engine.workshop import shop_settings, wait_for
from tests.services.workplace import ADMIN, copy_database

OVER = ("succeeded", "failed", "cancelled")


class Killed(BaseException):
    """As by kill -9: nothing catches it."""


@pytest.fixture
def bench(tmp_path: Path, template: Path) -> Iterator[Bench]:
    settings = shop_settings(tmp_path)
    copy_database(template, settings.data_dir)
    bench = Bench(tmp_path, settings)
    bench.store.places = ("file",)
    yield bench
    bench.store.close()


def told(bench: Bench) -> list[tuple[str, str]]:
    file = bench.settings.data_dir / "notices.jsonl"
    lines = map(json.loads, file.read_text().splitlines()) if file.exists() else ()
    return [(line["job"], line["event"]) for line in lines]


# --- going idle ------------------------------------------------------------


def submit_meanwhile(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Have a front submit a job right after the worker has counted none; return what the front saw."""
    real, saw = jobs.live_work_count, dict[str, object]()
    counted = threading.Event()
    worker = threading.current_thread()

    def front() -> None:
        assert counted.wait(30)
        store = open_store(bench.settings, bench.clock)
        service = type(bench.service)(store, backends=("fake",))
        saw["job"] = service.launch_job(bench.spec(resources__infra="fake"), "key", ADMIN).id
        saw["alive"] = ChangeService(store).worker().alive
        store.close()

    thread = threading.Thread(target=front)
    thread.start()
    saw["thread"] = thread

    def count(connection: object) -> int:
        found = real(connection)  # type: ignore[arg-type]
        if threading.current_thread() is worker and not counted.is_set():
            counted.set()
            thread.join(1.0)  # long enough for a submit that nothing holds up
        return found

    monkeypatch.setattr(jobs, "live_work_count", count)
    return saw


def is_lost(bench: Bench, saw: dict[str, object]) -> bool:
    """A live job, nobody who works, and a front that believes that somebody does."""
    thread = saw["thread"]
    assert isinstance(thread, threading.Thread)
    thread.join(30)
    status = ChangeService(bench.store).worker()
    return bool(status.live_jobs and not status.alive and saw["alive"])


def test_no_submit_falls_between_looking_and_going(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fence = Fence(bench.store, "worker", ttl=10.0, renew_after=3.0)
    assert fence.acquire()
    saw = submit_meanwhile(bench, monkeypatch)
    assert fence.release_if_idle()
    assert not is_lost(bench, saw)
    assert saw["alive"] is False  # so that the front starts a worker


def test_control_in_two_transactions_the_job_is_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fence = Fence(bench.store, "worker", ttl=10.0, renew_after=3.0)
    assert fence.acquire()
    saw = submit_meanwhile(bench, monkeypatch)
    with bench.store.read() as connection:
        idle = jobs.live_work_count(connection) == 0
    assert idle
    with bench.store.write() as connection:
        assert lease.release(connection, "engine", fence.holder, fence.epoch)
    assert is_lost(bench, saw)


def test_many_submits_and_idle_workers_lose_nothing(bench: Bench) -> None:
    """Fronts submit and look for a worker; a worker that finds nothing live goes, one that is missing is started."""
    bench.store.places = ()
    stop = threading.Event()

    def work() -> int:
        turns = 0
        while not stop.is_set():
            fence = Fence(bench.store, f"worker-{turns}", ttl=10.0, renew_after=3.0)
            if not fence.acquire():
                continue
            while not fence.release_if_idle():
                for row in bench.service.list_jobs():
                    if row.state == "queued":
                        bench.service.stop_job(row.id, ADMIN)
            turns += 1
        return turns

    def submit(number: int) -> None:
        for turn in range(12):
            key = f"{number}-{turn}"
            bench.service.launch_job(bench.spec(f"job-{key}", resources__infra="fake"), key, ADMIN)

    with ThreadPoolExecutor(3) as pool:
        worker = pool.submit(work)
        for front in [pool.submit(submit, number) for number in range(2)]:
            front.result(60)
        stop.set()
        assert worker.result(60) > 0
    status = ChangeService(bench.store).worker()
    assert (status.alive, status.live_jobs) == (False, 0)
    assert len(bench.service.list_jobs()) == 24


def run_worker(bench: Bench, command: str = "") -> int:
    notifiers = {"command": CommandNotifier(command)} if command else bench.engine(bench.fake()).notifiers
    settings = shop_settings(bench.root, tick=0.01)
    worker = Worker(bench.store, settings, {"fake": bench.fake()}, lambda *_: {}, notifiers, linger=0.02)
    return worker.run(until_idle=True)


def test_a_worker_tells_what_a_front_alone_brought_about(bench: Bench) -> None:
    """A job that waits for a person, or that is cancelled before it began, needs no engine; its notices do."""
    bench.job("asks", policy__approval="required")
    bench.service.stop_job(bench.job("gone"), ADMIN)
    status = ChangeService(bench.store).worker()
    assert (status.live_jobs, status.owed) == (0, 2)
    assert run_worker(bench) == 0
    assert sorted(told(bench)) == [("asks", "job.approval_requested"), ("gone", "job.cancelled")]
    assert ChangeService(bench.store).worker().owed == 0


def test_a_worker_does_not_go_while_a_notice_is_owed(bench: Bench) -> None:
    """The command fails at first; the notice is due again later, and later must come."""
    bench.store.places = ("command",)
    bench.service.stop_job(bench.job(), ADMIN)
    tried, out = bench.root / "tried", bench.root / "out"
    done = threading.Event()

    def hurry() -> None:
        while not done.wait(0.05):
            bench.clock.move(1)

    threading.Thread(target=hurry).start()
    try:
        assert run_worker(bench, f"if [ -e {tried} ]; then cat >> {out}; else touch {tried}; exit 1; fi") == 0
    finally:
        done.set()
    assert json.loads(out.read_text())["event"] == "job.cancelled"


# --- notices ------------------------------------------------------------


@pytest.mark.parametrize("step", ["outbox:told", "outbox:settled"])
def test_a_notice_is_told_once_though_the_worker_dies(bench: Bench, step: str) -> None:
    job = bench.job()
    deaths: list[str] = []

    def probe(name: str) -> None:
        if name == step and not deaths:
            deaths.append(name)
            raise Killed

    with bench.engine(bench.fake(), probe) as engine, pytest.raises(Killed):
        bench.play(engine, job, "never")
    bench.clock.move(120)
    with bench.engine(bench.fake(), holder="next") as engine:
        engine.tick(3)
        bench.clock.move(5)
        engine.tick(3)
    assert (deaths, told(bench)) == ([step], [("first", "job.succeeded")])


def test_control_a_place_that_cannot_look_back_is_told_twice(bench: Bench) -> None:
    job = bench.job()
    deaths: list[str] = []

    def probe(name: str) -> None:
        if name == "outbox:told" and not deaths:
            deaths.append(name)
            raise Killed

    engine = bench.engine(bench.fake(), probe)
    engine.notifiers["file"].told = lambda notice: False  # type: ignore[method-assign]
    with engine, pytest.raises(Killed):
        bench.play(engine, job, "never")
    bench.clock.move(120)
    after = bench.engine(bench.fake(), holder="next")
    after.notifiers["file"].told = lambda notice: False  # type: ignore[method-assign]
    with after:
        after.tick(2)
    assert told(bench) == [("first", "job.succeeded")] * 2


def test_a_deleted_job_does_not_silence_the_next(bench: Bench) -> None:
    """Row ids of deliveries come again when the last rows are deleted; a notice is known by its event."""
    with bench.engine(bench.fake()) as engine:
        for number in range(3):
            job = bench.job(f"job-{number}")
            bench.service.stop_job(job, ADMIN)
            engine.tick()
            bench.service.delete_job(job, ADMIN)
    assert told(bench) == [(f"job-{number}", "job.cancelled") for number in range(3)]


def test_a_late_answer_settles_no_other_notice(bench: Bench) -> None:
    from ainfinity.services.deliveries import DeliveryService

    bench.store.places = ("chat",)
    service = DeliveryService(bench.store)
    job = bench.job("one")
    bench.service.stop_job(job, ADMIN)
    (late,) = service.claim("chat")
    bench.service.delete_job(job, ADMIN)
    bench.service.stop_job(bench.job("two"), ADMIN)
    service.settle(late.id, "sent")
    assert [notice.event.type for notice in service.claim("chat")] == ["job.cancelled"]


def test_a_command_that_fails_is_tried_again_and_says_why(bench: Bench) -> None:
    bench.store.places = ("command",)
    bench.service.stop_job(bench.job(), ADMIN)
    out = bench.root / "out"
    with bench.engine(bench.fake()) as engine:
        command = CommandNotifier("echo no route >&2; exit 3")
        engine.notifiers.clear()
        engine.notifiers["command"] = command

        def row() -> Any:
            engine.tick()
            with bench.store.read() as connection:
                return connection.exec_driver_sql("SELECT state, tries, detail FROM delivery").one()

        wait_for(lambda: row().tries, "the first try")
        engine.tick(3)
        assert (row().state, row().tries) == ("owed", 1)
        assert "no route" in row().detail
        command.command = f"cat > {out}"
        engine.tick(3)
        assert not out.exists()  # not before its time
        bench.clock.move(3)
        wait_for(lambda: row().state == "sent", "the second try")
    assert json.loads(out.read_text())["event"] == "job.cancelled"

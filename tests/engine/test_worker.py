"""Real worker processes: started by fronts, killed, doubled, told to go."""

from __future__ import annotations

import json
import os
import signal
import time

import psutil
import pytest

from ainfinity.client import local
from ainfinity.client.connect import wait_until_over
from ainfinity.client.local import LocalClient, start_worker
from ainfinity.schema.actor import Actor
from ainfinity.services.changes import ChangeService
from ainfinity.store.migrate import HEAD
from ainfinity.store.store import open_store
from tests.engine.workshop import PATIENCE, Workshop, wait_for

OVER = ("succeeded", "failed", "cancelled")


@pytest.fixture
def quick(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A workshop whose fronts start quick workers."""
    for name, value in shop.environment().items():
        if name.startswith("AINFINITY_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(local, "_CHECK_WORKER", 0.1)
    monkeypatch.setattr(local, "_START_TIME", 3.0)
    return shop


def state(shop: Workshop, job: str, *states: str) -> str:
    return wait_for(lambda: shop.row(job).state in states and shop.row(job).state, f"{job} to be {states}")


def lease_of(shop: Workshop) -> tuple[bool, int]:
    status = ChangeService(shop.store).worker()
    return status.alive, int(status.holder.split(":")[1]) if status.holder else 0


async def test_a_job_survives_the_death_of_worker_and_client(quick: Workshop) -> None:
    shop = quick
    spec = shop.scripted("first", "start()\nstep(1)\nwait('half')\nstep(2)\nfinish()\n")
    client = LocalClient(open_store(shop.settings), shop.settings, Actor("local:ann"))
    job = (await client.submit(spec, "key")).id
    state(shop, job, "running")
    trainer = shop.reached("first", "half")
    _, worker = lease_of(shop)
    os.kill(worker, signal.SIGKILL)
    await client.close()
    wait_for(lambda: not psutil.pid_exists(worker) or psutil.Process(worker).status() == "zombie")
    assert trainer in shop.alive()
    # A second front, long after: it finds a live job without a live lease.
    second = LocalClient(open_store(shop.settings), shop.settings, Actor("local:bob"))
    shop.go("first", "half")
    assert (await wait_until_over(second, job)).state == "succeeded"
    await second.close()
    assert lease_of(shop)[1] != worker
    detail = shop.service.get_job_status(job)
    assert [attempt.state for attempt in detail.attempts] == ["succeeded"]
    assert [point.step for point in ChangeService(shop.store).metrics(job)] == [1, 2]
    assert [event.type for event in shop.events(job)].count("trainer.started") == 1
    wait_for(lambda: not lease_of(shop)[0], "the worker to go")
    shop.check_fold()


def test_fronts_that_race_start_one_worker_that_stays(quick: Workshop) -> None:
    shop = quick
    job = shop.submit(script="start()\nwait('end')\nfinish()\n")
    pids = [start_worker(shop.settings) for _ in range(2)]
    shop.workers += pids
    state(shop, job, "running")

    def left() -> list[int]:
        return [pid for pid in pids if psutil.Process(pid).status() != "zombie"]

    wait_for(lambda: len(left()) == 1, "the other to leave")
    assert lease_of(shop) == (True, left()[0])
    shop.go("first", "end")
    assert state(shop, job, *OVER) == "succeeded"
    assert shop.row(job).attempt == 1
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0]
    assert lease_of(shop) == (False, 0)


def test_a_worker_told_to_go_leaves_the_job_running(shop: Workshop) -> None:
    job = shop.submit(script="start()\nwait('end')\nfinish()\n")
    first = shop.start_worker()
    trainer = shop.reached("first", "end")
    state(shop, job, "running")
    first.terminate()
    assert first.wait(PATIENCE) == 0
    assert not lease_of(shop)[0]
    assert trainer in shop.alive()
    shop.go("first", "end")
    shop.start_worker()
    assert state(shop, job, *OVER) == "succeeded"


def test_a_worker_that_was_stopped_too_long_yields_to_another(shop: Workshop) -> None:
    """SIGSTOP stands for a laptop that slept: its lease ran out, and what it then wants to write is refused."""
    job = shop.submit(script="start()\nwait('end')\nfinish()\n")
    first = shop.start_worker()
    state(shop, job, "running")
    os.kill(first.pid, signal.SIGSTOP)
    wait_for(lambda: not lease_of(shop)[0], "the lease to run out")
    second = shop.start_worker()
    wait_for(lambda: lease_of(shop) == (True, second.pid), "the second worker to take the lease")
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait(PATIENCE) == 0
    shop.go("first", "end")
    assert state(shop, job, *OVER) == "succeeded"
    assert second.wait(PATIENCE) == 0
    assert [event.type for event in shop.events(job)].count("attempt.running") == 1
    lines = (shop.settings.data_dir / "notices.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["job.succeeded"]


def test_a_worker_of_an_older_version_leaves_the_jobs_alone(shop: Workshop) -> None:
    job = shop.submit(script="start()\nwait('end')\nfinish()\n")
    worker = shop.start_worker()
    state(shop, job, "running")
    shop.reached("first", "end")
    with shop.store.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        before = connection.exec_driver_sql("SELECT max(seq) FROM event").scalar_one()
    shop.go("first", "end")
    assert worker.wait(PATIENCE) == 4
    assert worker.stderr is not None
    assert b"Traceback" not in worker.stderr.read()
    time.sleep(0.2)
    with shop.store.write() as connection:
        assert connection.exec_driver_sql("SELECT max(seq) FROM event").scalar_one() == before
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '" + HEAD + "'")
    wait_for(lambda: not lease_of(shop)[0], "its lease, which it could not give back, to run out")
    shop.start_worker()
    assert state(shop, job, *OVER) == "succeeded"

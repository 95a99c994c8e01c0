"""`ainfinity.connect()`: the client for scripts and notebooks, without `async`."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import ainfinity
from ainfinity.client.connect import Session
from ainfinity.core.exceptions import InvalidSpec, NotFound, NotSupported, WrongState
from ainfinity.schema.states import JobState
from tests.engine.workshop import Workshop, shop_settings, wait_for
from tests.services.conftest import template
from tests.services.workplace import copy_database

__all__ = ["template"]

QUICK = {"tick": 0.1, "lease": 3.0, "renew": 0.5, "stop_grace": 2.0}


@pytest.fixture
def shop(tmp_path: Path, template: Path) -> Iterator[Workshop]:
    settings = shop_settings(tmp_path, **QUICK)
    copy_database(template, settings.data_dir)
    shop = Workshop(tmp_path, settings)
    yield shop
    shop.clear()


def job_file(shop: Workshop, name: str, script: str) -> Path:
    spec = shop.scripted(name, script)
    path = shop.root / f"{name}.yaml"
    path.write_text(
        f"name: {name}\nrecipe:\n  model: {spec.recipe.model}\n  data: data.jsonl\n"
        f"resources:\n  python: {shop.python}\n"
    )
    return path


def test_a_script_from_launch_to_the_files(shop: Workshop) -> None:
    """With settings of its own, which the worker that it starts must have too."""
    path = job_file(shop, "first", "write('hello' + chr(10))\ntrain()\nfinish()\n")
    with Session(shop.settings) as session:
        job = session.launch(path, "lr=1e-4", "note=why", key="key")
        assert session.launch(path, "lr=1e-4", "note=why", key="key").id == job.id
        done = session.wait(job.id, timeout=60)
        assert (done.state, done.note) == ("succeeded", "why")
        assert [row.id for row in session.list()] == [job.id]
        assert session.get("first").spec["recipe"]["lr"] == 1e-4
        assert [point.step for point in session.metrics("first")] == list(range(1, 9))
        assert next(iter(session.logs("first"))) == "hello"
        assert len(list(session.logs("first", tail=2))) == 2
        (weights,) = session.pull("first", "adapter", shop.root / "out")
        assert Path(weights).read_bytes() == b"weights"
    notices = shop.settings.data_dir / "notices.jsonl"
    wait_for(lambda: notices.exists() and '"event": "job.succeeded"' in notices.read_text(), "the notice")


def test_cancel_and_retry(shop: Workshop) -> None:
    job = shop.in_state(JobState.FAILED)
    with Session(shop.settings) as session:
        session.client.start_workers = False  # type: ignore[attr-defined]
        assert session.retry(job).state == "queued"
        assert session.cancel(job).state == "cancelled"


async def test_it_works_where_a_loop_is_running(shop: Workshop) -> None:
    """As in a notebook, whose cells run in one."""
    assert asyncio.get_running_loop()
    job = shop.in_state(JobState.SUCCEEDED)
    with Session(shop.settings) as session:
        assert session.get(job).job.state == "succeeded"
        assert session.wait(job, timeout=30).state == "succeeded"


def test_waiting_can_time_out_and_go_on(shop: Workshop) -> None:
    job = shop.launch(policy__approval="required", policy__notify="none").id
    with Session(shop.settings) as session:
        with pytest.raises(TimeoutError):
            session.wait(job, timeout=0.2)
        assert session.get(job).job.state == "awaiting_approval"


def test_ctrl_c_while_waiting_gives_the_session_back(shop: Workshop) -> None:
    job = shop.launch(policy__approval="required", policy__notify="none").id
    with Session(shop.settings) as session:
        timer = threading.Timer(0.3, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            session.wait(job)
        assert session.get(job).job.state == "awaiting_approval"

        async def left() -> int:
            await asyncio.sleep(0.1)
            return len(asyncio.all_tasks())

        assert asyncio.run_coroutine_threadsafe(left(), session._loop).result(30) == 1  # itself


def test_errors_are_ours(shop: Workshop) -> None:
    bad = shop.root / "bad.yaml"
    bad.write_text("name: x\nrecipe: {model: m, data: data.jsonl, lrr: 1}\n")
    with Session(shop.settings) as session:
        with pytest.raises(NotFound):
            session.get("nothing")
        with pytest.raises(NotFound):
            session.launch(shop.root / "missing.yaml")
        with pytest.raises(InvalidSpec, match="did you mean lr"):
            session.launch(bad)


def test_closing_leaves_nothing_behind_and_may_be_repeated(shop: Workshop) -> None:
    before = set(threading.enumerate())
    with Session(shop.settings) as session:
        session.list()
        session.close()
    session.close()
    assert set(threading.enumerate()) == before


def test_a_session_that_cannot_open_leaves_no_thread(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(threading.enumerate())
    monkeypatch.setenv("AINFINITY_SERVER", "http://127.0.0.1:1")
    with pytest.raises(NotSupported) as caught:
        ainfinity.connect()
    assert "AINFINITY_SERVER" in str(caught.value)
    assert set(threading.enumerate()) == before


def test_many_sessions_leave_no_files_open(shop: Workshop) -> None:
    def count() -> int:
        gc.collect()  # what other tests left is none of this one's
        return len(os.listdir("/dev/fd"))

    with Session(shop.settings):
        pass
    before = count()
    for _ in range(10):
        with Session(shop.settings) as session:
            session.list()
    assert count() <= before + 2


def test_data_and_machines_in_a_script(shop: Workshop) -> None:
    with Session(shop.settings) as session:
        row = session.add_data(shop.root / "data.jsonl", "chats")
        path = job_file(shop, "first", "train()\nfinish()\n")
        job = session.launch(path, "data=chats")
        assert session.wait(job.id, timeout=60).state == "succeeded"
        assert row.sha256 in session.get(job.id).spec["recipe"]["data"]
        for verb in (session.extend, session.keep):
            with pytest.raises(WrongState):
                verb(job.id, 60.0)
        with pytest.raises(WrongState):
            session.teardown(job.id)

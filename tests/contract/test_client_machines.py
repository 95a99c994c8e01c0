"""What every front may rely on about machines elsewhere and the data that goes there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ainfinity.core.exceptions import ComputeUnreachable, DataInvalid, NameTaken, NotFound, NotSupported, WrongState
from ainfinity.schema.states import JobState
from ainfinity.schema.views import JobQuery
from ainfinity.services import outside
from tests.contract.conftest import Clients
from tests.services.workplace import write_chats

SECONDS = 30.0
HEALTH = {"endpoint": "http://127.0.0.1:1", "local": True, "problem": "", "hint": "", "reachable": True}


async def test_data_is_kept_and_named_by_jobs(clients: Clients) -> None:
    client, other, work = clients.open(), clients.open(), clients.work
    row = await client.data_add(str(work.data), "chats")
    assert await other.data_list() == [row]
    found, path = await other.data_show("chats")
    assert found == row
    assert Path(path).read_bytes() == work.data.read_bytes()
    with pytest.raises(NameTaken):
        await other.data_add(str(write_chats(work.root / "more.jsonl", rows=9)), "chats")
    with pytest.raises(DataInvalid):
        await client.data_add(str(work.root / "nowhere.jsonl"))
    spec = work.spec(recipe__data="chats")
    plan = await client.plan(spec)
    assert plan.plan["data_sha256"] == row.sha256
    job = await client.submit(spec, "key", plan_hash=plan.plan_hash)
    assert (await client.get_job(job.id)).spec["recipe"]["data"] == path
    with pytest.raises(WrongState):
        await client.data_remove("chats")
    await client.cancel(job.id)
    assert await client.data_remove("chats") == row
    with pytest.raises(NotFound):
        await client.data_show("chats")
    with pytest.raises(NotFound):
        await client.plan(spec)


async def test_a_submit_keeps_what_it_was_planned_on(clients: Clients) -> None:
    client, work = clients.open(), clients.work
    content = work.data.read_bytes()
    await client.submit(work.spec(), "key")
    write_chats(work.data, rows=9)
    (kept,) = await client.data_list()
    _, path = await client.data_show(kept.sha256)
    assert Path(path).read_bytes() == content


async def test_a_question_that_hangs_holds_up_nothing_else(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def ask(question: str, arguments: Mapping[str, Any], limit: float) -> Any:
        assert answered.wait(SECONDS)
        return {"gpus": [], "free": []}

    monkeypatch.setattr(outside, "run_ask", ask)
    client = clients.open()
    asking = asyncio.create_task(client.gpus())
    try:
        async with asyncio.timeout(SECONDS):
            assert await client.list_jobs(JobQuery()) == []
        assert not asking.done()
    finally:
        answered.set()
    assert (await asking).offers == ()


async def test_what_cannot_be_answered_says_why(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(question: str, arguments: Mapping[str, Any], limit: float) -> Any:
        if question == "health":
            return HEALTH | {"problem": "Nothing answers.", "reachable": False}
        raise ComputeUnreachable("Nothing answers.", hint="Start it.")

    monkeypatch.setattr(outside, "run_ask", ask)
    client = clients.open()
    assert (await client.sky_status()).problem == "Nothing answers."
    for question in (client.gpus, client.adoptable, client.start_sky):
        with pytest.raises(ComputeUnreachable, match="Nothing answers"):
            await question()
    orphans = await client.orphans()
    assert (orphans.rows, orphans.at, orphans.error["hint"]) == ((), 0.0, "Start it.")
    with pytest.raises(NotFound):
        await client.answer_orphan("ain-00000000-zzzzzzzzzz-a1", "remove")


async def test_verbs_on_a_machine_need_one(clients: Clients) -> None:
    client, work = clients.open(), clients.work
    over = work.in_state(JobState.SUCCEEDED)
    for verb in (client.extend(over, 60.0), client.keep(over, 60.0), client.teardown(over)):
        with pytest.raises(WrongState):
            await verb
    with pytest.raises(NotSupported):
        await client.shell(over)
    for verb in (client.extend("no", 60.0), client.keep("no", 60.0), client.teardown("no"), client.shell("no")):
        with pytest.raises(NotFound):
            await verb

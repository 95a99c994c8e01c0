"""What every front may rely on, whichever client it has. One suite; a client joins it in `conftest.clients`."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from ainfinity.client.connect import wait_until_over
from ainfinity.client.port import Client
from ainfinity.core.exceptions import (
    DataInvalid,
    KeyReused,
    NameTaken,
    NotFound,
    NotSupported,
    PlanChanged,
    UsageError,
    WrongState,
)
from ainfinity.schema.event import EventType
from ainfinity.schema.states import JobState
from ainfinity.schema.views import ArtifactRow, FeedItem, JobQuery, Progress
from ainfinity.store import jobs, metrics, progress
from tests.contract.conftest import Clients
from tests.services.workplace import write_chats

SECONDS = 30.0


async def collect(client: Client, cursor: int, until: int, seen: list[FeedItem]) -> None:
    """Read the feed until the event `until`."""
    async with asyncio.timeout(SECONDS), aclosing(client.feed(cursor, 0)) as feed:
        async for item in feed:
            seen.append(item)
            if item.cursor >= until:
                return


def seqs(items: list[FeedItem]) -> list[int]:
    return [event.seq for item in items for event in item.events]


async def test_a_plan_and_its_launch(clients: Clients) -> None:
    client, spec = clients.open(), clients.work.spec(tags=("a",), note="n")
    plan = await client.plan(spec)
    assert (plan.needs_approval, plan.spec, plan.plan["data_rows"]) == (False, spec.as_json(), 4)
    assert await client.list_jobs(JobQuery()) == []
    row = await client.submit(spec, "key", plan_hash=plan.plan_hash)
    assert (row.name, row.state, row.tags, row.note) == ("first", "queued", ("a",), "n")
    detail = await client.get_job("first")
    assert (detail.job, detail.plan_hash, detail.spec, detail.attempts) == (row, plan.plan_hash, spec.as_json(), ())
    assert await client.list_jobs(JobQuery()) == [row]
    assert [event.actor for event in await client.events(row.id)] == [row.owner] * 4


async def test_launches_that_are_refused(clients: Clients) -> None:
    client, work = clients.open(), clients.work
    row = await client.submit(work.spec(), "key")
    assert await client.submit(work.spec(), "key") == row
    with pytest.raises(KeyReused):
        await client.submit(work.spec(note="other"), "key")
    with pytest.raises(NameTaken):
        await client.submit(work.spec(), "other key")
    with pytest.raises(PlanChanged):
        await client.submit(work.spec("second"), "second", plan_hash="0" * 16)
    with pytest.raises(NotSupported):
        await client.submit(work.spec("second", resources__infra="fake"), "second")
    with pytest.raises(NotFound):
        await client.submit(work.spec("second", secrets=("MISSING",)), "second")
    work.data.write_text("no json\n")
    with pytest.raises(DataInvalid):
        await client.submit(work.spec("second"), "second")
    with pytest.raises(DataInvalid):
        await client.plan(work.spec("second"))
    assert [job.id for job in await client.list_jobs(JobQuery())] == [row.id]


async def test_the_life_of_a_job_through_its_verbs(clients: Clients) -> None:
    client, work = clients.open(), clients.work
    job = (await client.submit(work.spec(policy__approval="required"), "key")).id
    for verb in (client.delete, client.retry):
        with pytest.raises(WrongState):
            await verb(job)
    shown = (await client.get_job(job)).plan_hash
    write_chats(work.data, rows=6)
    with pytest.raises(PlanChanged):
        await client.approve(job, shown)
    assert (await client.approve(job)).state == "queued"
    with pytest.raises(WrongState):
        await client.reject(job, "late")
    work.record(job, EventType.ATTEMPT_INTENDED, EventType.ATTEMPT_LAUNCHED, EventType.ATTEMPT_RUNNING)
    assert (await client.cancel(job)).state == "cancelling"
    assert (await client.cancel(job)).state == "cancelling"
    work.record(job, EventType.ATTEMPT_CANCELLED, EventType.CANCELLED)
    with pytest.raises(WrongState):
        await client.cancel(job)
    assert (await client.retry(job)).state == "queued"
    assert (await client.cancel(job)).state == "cancelled"
    before = (await client.events())[-1].seq
    await client.delete(job)
    told = await client.events(after=before)
    assert [(event.type, event.job_id) for event in told] == [(EventType.DELETED, job)], "every front must hear of it"
    for read in (client.get_job, client.logs, client.metrics, client.artifacts, client.events):
        with pytest.raises(NotFound):
            await read(job)
    other = (await client.submit(work.spec("other", policy__approval="required"), "other")).id
    rejected = await client.reject(other, "too dear")
    assert (rejected.state, rejected.error_message) == ("rejected", "too dear")


async def test_a_retry_with_changes_is_a_new_job(clients: Clients) -> None:
    client, work = clients.open(), clients.work
    job = work.in_state(JobState.FAILED)
    work.clock.move(1)
    row = await client.retry("first", spec=work.spec(recipe__lr=0.5))
    assert row.id != job
    assert row.state == "queued"
    assert (await client.get_job(row.id)).spec["recipe"]["lr"] == 0.5
    with pytest.raises(NotFound):
        await client.retry("nothing", spec=work.spec("second"))


async def test_lists_are_filtered_sorted_and_paged(clients: Clients) -> None:
    client, work = clients.open(), clients.work
    ids: list[str] = []
    for number in range(7):
        work.clock.move(1)
        ids.append(work.launch(f"job-{number}", tags=("even" if number % 2 == 0 else "odd",), note=f"n{number}").id)
    await client.cancel(ids[0])
    newest_first = list(reversed(ids))
    assert [row.id for row in await client.list_jobs(JobQuery())] == newest_first
    assert [row.id for row in await client.list_jobs(JobQuery(states=("cancelled",)))] == [ids[0]]
    assert [row.id for row in await client.list_jobs(JobQuery(tags=("odd",)))] == newest_first[1::2]
    assert [row.id for row in await client.list_jobs(JobQuery(text="n3"))] == [ids[3]]
    paged: list[str] = []
    before = None
    while page := await client.list_jobs(JobQuery(limit=3, before=before)):
        paged += [row.id for row in page]
        before = (page[-1].submitted_at, page[-1].id)
    assert paged == newest_first


async def test_a_feed_tells_every_change_once_and_in_order_to_each_of_two(clients: Clients) -> None:
    work, one, two = clients.work, clients.open(), clients.open()
    seen: tuple[list[FeedItem], list[FeedItem]] = ([], [])
    last = 12 * 4
    readers = [asyncio.create_task(collect(one, 0, last, seen[0])), asyncio.create_task(collect(two, 0, last, seen[1]))]
    for number in range(12):
        await (one, two)[number % 2].submit(work.spec(f"job-{number}"), f"key-{number}")
        await asyncio.sleep(0.01 * (number % 3))
    await asyncio.gather(*readers)
    assert seqs(seen[0]) == seqs(seen[1]) == list(range(1, last + 1))
    for items in seen:
        rows = {row.id: row for item in items for row in item.jobs}
        assert sorted(rows.values(), key=lambda row: row.id) == sorted(
            await one.list_jobs(JobQuery()), key=lambda row: row.id
        )


async def test_a_feed_hears_of_another_process_quickly(clients: Clients) -> None:
    """A ring of the bell, and not the look once a second, brings it."""
    client, work = clients.open(), clients.work
    job = work.launch().id
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(work.settings.data_dir), job], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    await asyncio.to_thread(writer.stdout.readline)
    delays: list[float] = []
    cursor = work.events()[-1].seq
    async with asyncio.timeout(SECONDS), aclosing(client.feed(cursor)) as feed:
        for _ in range(10):
            began = asyncio.get_running_loop().time()
            writer.stdin.write(b"\n")
            writer.stdin.flush()
            assert [event.type for event in (await anext(feed)).events] == ["trainer.sample"]
            delays.append(asyncio.get_running_loop().time() - began)
            await asyncio.sleep(0.02)
    writer.stdin.close()
    assert writer.wait(SECONDS) == 0
    assert sorted(delays)[5] < 0.5, delays


_WRITER = """
import sys
from pathlib import Path
from ainfinity.core.config import Settings
from ainfinity.schema.event import Event
from ainfinity.store import events
from ainfinity.store.store import open_store
store = open_store(Settings(data_dir=Path(sys.argv[1]), config_dir=Path(sys.argv[1])))
print("ready", flush=True)
for _ in sys.stdin:
    with store.write() as connection:
        events.append(connection, [Event("trainer.sample", sys.argv[2], 1.0, "engine", 1)])
"""


async def test_a_feed_goes_on_from_any_cursor(clients: Clients) -> None:
    client, work = clients.open(), clients.work
    for number in range(5):
        work.in_state(JobState.SUCCEEDED, f"job-{number}")
    everything = [event.seq for event in await client.events()]
    for cursor in random.Random(1).sample(range(len(everything)), 6):
        seen: list[FeedItem] = []
        await collect(client, cursor, everything[-1], seen)
        assert seqs(seen) == everything[cursor:]


async def test_a_feed_without_a_cursor_begins_now(clients: Clients) -> None:
    client, work = clients.open(), clients.work
    job = work.in_state(JobState.RUNNING)
    feed = client.feed()
    first = asyncio.ensure_future(anext(feed))
    await asyncio.sleep(0.1)
    with work.store.write() as connection:
        progress.put(connection, job, Progress(step=2, total_steps=8, loss=1.0))
    item = await asyncio.wait_for(first, SECONDS)
    assert (item.events, item.progress[job].step) == ((), 2)
    await feed.aclose()


async def test_logs(clients: Clients) -> None:
    client, work = clients.open(), clients.work
    job = work.in_state(JobState.RUNNING)
    log = clients.log(job, 1)
    assert (await client.logs(job)).lines == ()
    log.write_bytes(b"one\r\ntwo \xff\nthr")
    chunk = await client.logs(job)
    assert (list(chunk.lines), chunk.offset, chunk.ended) == (["one", "two \N{REPLACEMENT CHARACTER}"], 11, False)
    with log.open("ab") as file:
        file.write(b"ee\n" + b"x" * 5_000_000 + b"\nlast, without an end")
    lines: list[str] = []
    while more := await client.logs(job, offset=chunk.offset):
        if more.offset == chunk.offset:
            break
        lines += more.lines
        chunk = more
    assert (lines[0], "".join(lines[1:])) == ("three", "x" * 5_000_000)
    work.record(job, EventType.ATTEMPT_FAILED, EventType.FAILED)
    chunk = await client.logs(job, offset=chunk.offset)
    assert (list(chunk.lines), chunk.ended) == (["last, without an end"], True)
    assert list((await client.logs(job, tail=1)).lines) == ["last, without an end"]
    with pytest.raises(NotFound):
        await client.logs(job, attempt=2)


async def test_followed_logs_go_on_through_a_second_attempt(clients: Clients) -> None:
    client, work = clients.open(), clients.work
    job = work.launch().id
    lines: list[tuple[int, str]] = []

    async def follow() -> None:
        async for chunk in client.follow_logs(job, tail=None):
            lines.extend((chunk.attempt, line) for line in chunk.lines)

    async def until(line: str) -> None:
        async with asyncio.timeout(SECONDS):
            while line not in [text for _, text in lines]:
                await asyncio.sleep(0.01)

    reader = asyncio.create_task(follow())
    work.record(job, EventType.ATTEMPT_INTENDED, EventType.ATTEMPT_LAUNCHED, EventType.ATTEMPT_RUNNING)
    first, second = clients.log(job, 1), clients.log(job, 2)
    first.write_text("a\nb\n")
    await until("b")
    with first.open("a") as file:
        file.write("c\nno end")
    work.record(job, EventType.ATTEMPT_LOST, (EventType.QUEUED, {"cause": "loss"}))
    await until("no end")
    assert not reader.done()
    work.record(job, EventType.ATTEMPT_INTENDED, EventType.ATTEMPT_RUNNING, attempt=2)
    second.write_text("a\n")
    await asyncio.sleep(0)
    work.record(job, EventType.ATTEMPT_SUCCEEDED, EventType.SUCCEEDED, attempt=2)
    await asyncio.wait_for(reader, SECONDS)
    assert lines == [(1, "a"), (1, "b"), (1, "c"), (1, "no end"), (2, "a")]


async def test_followed_logs_of_one_attempt_end_with_it(clients: Clients) -> None:
    client, work = clients.open(), clients.work
    job = work.in_state(JobState.FAILED)
    clients.log(job, 1).write_text("".join(f"{number}\n" for number in range(20)))
    await client.retry(job)
    async with asyncio.timeout(SECONDS):
        chunks = [chunk async for chunk in client.follow_logs(job, attempt=1, tail=3)]
    assert [line for chunk in chunks for line in chunk.lines] == ["17", "18", "19"]


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.REJECTED])
async def test_followed_logs_of_a_job_without_any_end(clients: Clients, state: JobState) -> None:
    client = clients.open()
    job = clients.work.in_state(state)
    async with asyncio.timeout(SECONDS):
        assert [chunk async for chunk in client.follow_logs(job)] == []


async def test_metrics(clients: Clients) -> None:
    client, work = clients.open(), clients.work
    job = work.in_state(JobState.RUNNING)
    with work.store.write() as connection:
        points = [(step, step, float(step), {"loss": 1.0 / step, "lr": 0.1}) for step in range(1, 51)]
        metrics.append_chunk(connection, job, 1, points)
    assert [point.step for point in await client.metrics(job, after=(1, 47))] == [48, 49, 50]
    few = await client.metrics(job, names=("loss",), limit=5)
    assert (few[0].step, few[-1].step, set(few[0].values)) == (1, 50, {"loss"})


async def test_pulled_files_are_checked(clients: Clients, tmp_path: Path) -> None:
    import hashlib

    client, work = clients.open(), clients.work
    job = work.in_state(JobState.SUCCEEDED)
    adapter = work.settings.jobs_dir / job / "output" / "adapter"
    adapter.mkdir(parents=True)
    content = random.Random(2).randbytes(3_000_000)
    (adapter / "weights").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    with work.store.write() as connection:
        rows = [
            ArtifactRow(job, 1, "adapter", str(adapter), 0, "", 1.0, 8),
            ArtifactRow(job, 1, "file", "weights", len(content), digest, 1.0),
        ]
        jobs.add_artifacts(connection, rows)
    assert [row.kind for row in await client.artifacts(job)] == ["adapter", "file"]
    target = tmp_path / "out"
    (path,) = await client.pull(job, "adapter", str(target))
    assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == digest
    Path(path).write_bytes(content[:1000])  # as a pull that was cut would leave it
    assert await client.pull(job, "adapter", str(target)) == [path]
    assert Path(path).read_bytes() == content
    assert await client.pull(job, "adapter", str(target)) == [path]
    (adapter / "weights").write_bytes(content[:-1] + b"x")
    with pytest.raises(DataInvalid):
        await client.pull(job, "adapter", str(target))
    assert Path(path).read_bytes() == content
    with pytest.raises(UsageError):
        await client.pull(job, "everything", str(target))
    with pytest.raises(NotFound):
        await client.pull(job, "model", str(target))


async def test_notices(clients: Clients) -> None:
    client, work = clients.open(), clients.work
    work.store.places = ("chat",)
    job = work.in_state(JobState.FAILED)
    (notice,) = await client.notices("chat")
    assert (notice.job_id, notice.event.type, notice.tries) == (job, "job.failed", 1)
    assert await clients.open().notices("chat") == []
    await client.settle_notice(notice.id, "failed", "no network")
    work.clock.move(60)
    (notice,) = await client.notices("chat")
    assert notice.tries == 2
    await client.settle_notice(notice.id, "sent")
    work.clock.move(10_000)
    assert await client.notices("chat") == []


async def test_waiting_until_a_job_is_over(clients: Clients) -> None:
    client, work = clients.open(), clients.work
    done = work.in_state(JobState.FAILED, "done")
    assert (await wait_until_over(client, "done")).id == done
    job = work.in_state(JobState.RUNNING, "runs")
    waiting = asyncio.create_task(wait_until_over(client, "runs"))
    await asyncio.sleep(0.1)
    work.record(job, EventType.TRAINER_SAMPLE)
    await asyncio.sleep(0.05)
    assert not waiting.done()
    work.record(job, EventType.ATTEMPT_SUCCEEDED, EventType.SUCCEEDED)
    assert (await asyncio.wait_for(waiting, SECONDS)).state == "succeeded"
    with pytest.raises(NotFound):
        await wait_until_over(client, "nothing")


async def test_the_worker_and_what_it_has_to_do(clients: Clients) -> None:
    client, work = clients.open(), clients.work
    assert (await client.worker()).live_jobs == 0
    work.launch()
    status = await client.ensure_worker()
    assert (status.alive, status.live_jobs) == (False, 1)


async def test_many_calls_at_once(clients: Clients) -> None:
    client, work = clients.open(), clients.work
    rows = await asyncio.gather(*(client.submit(work.spec(f"job-{n % 10}"), f"key-{n % 10}") for n in range(40)))
    assert len({row.id for row in rows}) == 10
    work.check_fold()

"""What the screen says when something does not answer, and that the app goes on."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from ainfinity.core.exceptions import DatabaseLocked, DatabaseNewer
from ainfinity.schema.event import EventType
from ainfinity.schema.views import FeedItem
from tests.tui import scenes
from tests.tui.double import MemoryClient
from tests.tui.stage import on_stage, screen_text, settle, until, until_shown
from tui.messages import Fed

LOCKED = DatabaseLocked("The database is locked by another process.", hint="It is tried again.")


async def test_rows_show_before_the_client_is_open_and_then_stay(some: MemoryClient) -> None:
    gate = asyncio.Event()

    async def open_late() -> MemoryClient:
        await gate.wait()
        return some

    async with on_stage(some, open_client=open_late) as pilot:
        assert "demo-docstrings" in screen_text(pilot)
        assert "reading …" in screen_text(pilot)
        assert some.calls == []
        await pilot.press("down")
        gate.set()
        await until_shown(pilot, "● worker")
        assert "13 jobs" in screen_text(pilot)
        assert screen_text(pilot).splitlines()[3].startswith("❯")


async def test_a_command_before_the_client_is_open_is_not_lost_silently(some: MemoryClient) -> None:
    async def never() -> MemoryClient:
        await asyncio.Event().wait()
        raise AssertionError

    async with on_stage(some, open_client=never) as pilot:
        await pilot.press("x")
        await until_shown(pilot, "Cancel demo-docstrings?")
        await pilot.press("y")
        await until_shown(pilot, "The service is not reached yet")


async def test_a_client_that_does_not_open_is_told_and_tried_again(some: MemoryClient) -> None:
    tries: list[int] = []

    async def open_third_time() -> MemoryClient:
        tries.append(1)
        if len(tries) < 3:
            raise DatabaseNewer("The database was written by a newer ainfinity.", hint="Upgrade this one.")
        return some

    async with on_stage(some, open_client=open_third_time, first_paint=list) as pilot:
        await until_shown(pilot, "demo-docstrings")
        assert len(tries) == 3
        await settle(pilot)
        assert "newer" not in screen_text(pilot)


async def test_without_rows_the_reason_fills_the_screen(client: MemoryClient) -> None:
    async def never_opens() -> MemoryClient:
        raise DatabaseNewer("The database was written by a newer ainfinity.", hint="Upgrade this one, or use its own.")

    async with on_stage(client, open_client=never_opens, first_paint=list) as pilot:
        await until_shown(pilot, "written by a newer ainfinity. Upgrade this one")
        assert "Trying again" in screen_text(pilot)
        await pilot.press("q")


async def test_a_first_paint_that_fails_leaves_it_to_the_client(some: MemoryClient) -> None:
    def broken() -> list[object]:
        raise DatabaseLocked("The database is locked.")

    async with on_stage(some, first_paint=broken) as pilot:
        await until_shown(pilot, "demo-docstrings")
        assert "locked" not in screen_text(pilot)


@pytest.mark.parametrize("method", ["list_jobs", "feed"])
async def test_a_feed_that_breaks_is_taken_up_where_it_was(some: MemoryClient, method: str) -> None:
    some.faults[method] = [LOCKED, RuntimeError("boom\x1b[31m")]
    async with on_stage(some) as pilot:
        await until(pilot, lambda: not some.faults[method], "the second try")
        some.step(scenes.DEMO, 10, 16, 2.222)
        await until_shown(pilot, "2.222")
        assert "locked" not in screen_text(pilot)


async def test_trouble_is_shown_while_it_lasts(some: MemoryClient) -> None:
    some.faults["list_jobs"] = [LOCKED] * 10_000
    async with on_stage(some) as pilot:
        await until_shown(pilot, "✗ The database is locked by another process. It is tried again.")
        assert "demo-docstrings" in screen_text(pilot)
        some.faults["list_jobs"].clear()
        await until(pilot, lambda: "locked" not in screen_text(pilot), "the line goes away")


@pytest.mark.parametrize("method", ["get_job", "events", "metrics", "logs"])
async def test_a_page_is_read_again_until_it_is_whole(some: MemoryClient, method: str) -> None:
    some.faults[method] = [LOCKED, LOCKED]
    async with on_stage(some, job="demo-docstrings") as pilot:
        await until_shown(pilot, "step 9/16  loss 2.748")
        await until_shown(pilot, "2.748 now, 2.732 best")
        await pilot.press("3")
        await until_shown(pilot, "training started")
        await until(pilot, lambda: "locked" not in screen_text(pilot), "the line goes away")


async def test_no_worker_is_told_and_w_starts_one(some: MemoryClient) -> None:
    some.worker_alive = False
    async with on_stage(some) as pilot:
        await until_shown(pilot, "✗ no worker w starts one")
        await pilot.press("w")
        await until_shown(pilot, "● worker")
        assert ("ensure_worker", "") in some.calls


async def test_a_worker_that_cannot_be_started_says_why(some: MemoryClient) -> None:
    some.worker_alive = False
    some.faults["ensure_worker"] = [LOCKED]
    async with on_stage(some) as pilot:
        await until_shown(pilot, "no worker")
        await pilot.press("w")
        await until_shown(pilot, "No worker could be started: The database is locked")


async def test_an_idle_worker_without_jobs_is_no_alarm(client: MemoryClient) -> None:
    client.worker_alive = False
    async with on_stage(client) as pilot:
        await until_shown(pilot, "○ worker idle")
        assert "No jobs yet." in screen_text(pilot)


async def test_an_answer_goes_away_after_a_while(some: MemoryClient) -> None:
    async with on_stage(some) as pilot:
        pilot.app.say("Something was done.", "good")
        await until_shown(pilot, "✓ Something was done.")
        some.clock.time += 7
        pilot.app._tick()
        await settle(pilot)
        assert "Something was done." not in screen_text(pilot)


async def test_a_feed_item_about_unknown_jobs_and_events_does_no_harm(some: MemoryClient) -> None:
    async with on_stage(some) as pilot:
        event = some.history[0]
        pilot.app.post_message(Fed(FeedItem(10**6, 10**6, (event,), (), {"nobody": some.rows[scenes.DEMO].progress})))
        await settle(pilot)
        assert "13 jobs" in screen_text(pilot)


async def test_a_job_deleted_under_the_cursor_leaves_the_cursor_on_its_neighbour(some: MemoryClient) -> None:
    async with on_stage(some) as pilot:
        await pilot.press("end")
        last = pilot.app.screen.table.job
        await some.delete(last)
        await until(pilot, lambda: pilot.app.screen.table.job != last, "another job under the cursor")
        assert "❯" in screen_text(pilot)
        assert "12 jobs" in screen_text(pilot)


async def test_losing_and_finding_contact(some: MemoryClient) -> None:
    async with on_stage(some) as pilot:
        some.record(EventType.CONTACT_LOST, scenes.DEMO)
        await until_shown(pilot, "? no contact demo-docstrings")
        some.record(EventType.CONTACT_RESTORED, scenes.DEMO)
        await until_shown(pilot, "● running    demo-docstrings")


@pytest.mark.parametrize("no_color", [False, True])
async def test_without_colour_all_is_grey_and_states_still_differ(
    some: MemoryClient, monkeypatch: pytest.MonkeyPatch, no_color: bool
) -> None:
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    async with on_stage(some) as pilot:
        colours = {
            tuple(colour.triplet)
            for strip in pilot.app.screen._compositor.render_strips()
            for segment in strip
            if segment.style is not None
            for colour in (segment.style.color, segment.style.bgcolor)
            if colour is not None and colour.triplet is not None
        }
        grey = all(max(colour) - min(colour) <= 1 for colour in colours)
        assert grey == no_color
        text = screen_text(pilot)
        assert all(symbol in text for symbol in "●?◔↻◑○◇✓✗⊘∅❯")


def test_starting_loads_nothing_heavy() -> None:
    heavy = (
        "pydantic",
        "sqlmodel",
        "sqlalchemy",
        "torch",
        "sky",
        "slack_bolt",
        "httpx",
        "ainfinity.store",
        "ainfinity.services",
    )
    code = f"import sys, tui.app; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.strip() == "[]"
    # The control: the same look does find a module that is loaded.
    control = code.replace("tui.app;", "tui.app, sqlite3, pydantic;")
    found = subprocess.run([sys.executable, "-c", control], capture_output=True, text=True, check=True, timeout=120)
    assert "pydantic" in found.stdout
    assert os.environ.get("NO_COLOR") is None


async def test_reading_everything_again_finds_what_the_feed_did_not_tell(some: MemoryClient) -> None:
    async with on_stage(some) as pilot:
        del some.rows[scenes.DEMO]  # as if a database was put back from a backup
        await pilot.press("ctrl+r")
        await until(pilot, lambda: "demo-docstrings" not in screen_text(pilot), "the row goes away")
        assert "12 jobs" in screen_text(pilot)

"""The page of one job: its panes, its log, and what it says in each state."""

from __future__ import annotations

from typing import Any

import pytest
from textual.pilot import Pilot

from ainfinity.schema.event import EventType
from ainfinity.schema.states import JobState
from tests.tui import scenes
from tests.tui.double import NOW, MemoryClient, job_row
from tests.tui.stage import on_stage, screen_text, settle, until, until_shown
from tui.screens.job import JobScreen
from tui.screens.jobs import JobsScreen
from tui.widgets.lines_view import MOST_LINES

DEMO = scenes.DEMO


def page(pilot: Pilot[Any]) -> JobScreen:
    screen = pilot.app.screen
    assert isinstance(screen, JobScreen)
    return screen


@pytest.mark.parametrize("wanted", ["demo-docstrings", DEMO, "demo-d"])
async def test_a_wished_job_opens_at_once_and_escape_leads_to_all_jobs(some: MemoryClient, wanted: str) -> None:
    async with on_stage(some, job=wanted) as pilot:
        assert "demo-docstrings" in screen_text(pilot).splitlines()[0]
        await pilot.press("escape")
        await settle(pilot)
        assert isinstance(pilot.app.screen, JobsScreen)


async def test_a_wished_job_that_the_first_paint_missed_opens_once_the_service_lists_it(some: MemoryClient) -> None:
    async with on_stage(some, job="demo-docstrings", first_paint=list) as pilot:
        await until_shown(pilot, "step 9/16")


async def test_a_wish_for_an_unknown_job_says_so_and_shows_what_there_is(some: MemoryClient) -> None:
    async with on_stage(some, job="no-such\x1b[31m") as pilot:
        await until_shown(pilot, "There is no job “no-such”")
        assert isinstance(pilot.app.screen, JobsScreen)


async def test_steps_log_and_events_arrive_while_one_looks(some: MemoryClient) -> None:
    async with on_stage(some, job="demo-docstrings") as pilot:
        some.step(DEMO, 10, 16, 2.5011, eta=20.0)
        some.log(DEMO, scenes.trainer_line(13, "step", step=10, total_steps=16, loss=2.5011), "plain words")
        some.record(EventType.TRAINER_CHECKPOINT, DEMO, attempt=1, step=10, path="checkpoints/step-000010")
        await until_shown(pilot, "62%  loss 2.501  ETA 20s  step 10/16")
        await until_shown(pilot, "plain words")
        await until_shown(pilot, "2.501 now, 2.501 best")
        await pilot.press("3")
        await until_shown(pilot, "▣ checkpoint  step 10")


async def test_losses_that_are_no_numbers_are_told(some: MemoryClient) -> None:
    async with on_stage(some, job="demo-docstrings") as pilot:
        some.step(DEMO, 10, 16, None)
        some.step(DEMO, 11, 16, float("nan"))
        await until_shown(pilot, "2.748 now, 2.732 best   2 steps without a number")
        assert "loss –" in screen_text(pilot)


async def test_tab_and_numbers_go_through_the_panes(some: MemoryClient) -> None:
    async with on_stage(some, job="demo-docstrings") as pilot:
        screen = page(pilot)
        assert screen.log_view.has_focus
        for key, focused in (
            ("tab", "events"),
            ("tab", "details"),
            ("tab", "loss"),
            ("shift+tab", "details"),
            ("2", "log"),
        ):
            await pilot.press(key)
            await settle(pilot)
            assert screen.focused is not None
            assert screen.focused.id == focused
        await pilot.press("1", "shift+tab", "pagedown")
        await until_shown(pilot, "micro_batch_size")


async def test_zoom_and_back(some: MemoryClient) -> None:
    async with on_stage(some, job="demo-docstrings") as pilot:
        await pilot.press("1", "z")
        await settle(pilot)
        assert [pane for pane in ("loss", "log") if page(pilot).query_one(f"#{pane}").display] == ["loss"]
        await pilot.press("escape")
        await settle(pilot)
        assert page(pilot).query_one("#log").display
        await pilot.press("l")
        await settle(pilot)
        assert not page(pilot).query_one("#loss").display
        await pilot.press("l")
        await settle(pilot)
        assert page(pilot).query_one("#loss").display


async def test_scrolling_up_stops_following_and_f_follows_again(some: MemoryClient) -> None:
    some.log(DEMO, *(f"line {index}" for index in range(200)))
    async with on_stage(some, job="demo-docstrings") as pilot:
        await until_shown(pilot, "line 199")
        assert "2 Log   following" in screen_text(pilot)
        await pilot.press("pageup")
        await settle(pilot)
        assert "line 199" not in screen_text(pilot)
        some.log(DEMO, "news one", "news two")
        await until_shown(pilot, "2 new lines below, f follows")
        assert "news two" not in screen_text(pilot)
        await pilot.press("f")
        await until_shown(pilot, "news two")
        await pilot.press("home")
        await until_shown(pilot, "torchrun: starting 2 ranks")
        await pilot.press("end")
        await until_shown(pilot, "news two")
        some.log(DEMO, "news three")
        await until_shown(pilot, "news three")


async def test_long_lines_scroll_sideways(some: MemoryClient) -> None:
    some.log(DEMO, "start " + "." * 70 + " far to the right")
    async with on_stage(some, job="demo-docstrings") as pilot:
        await until_shown(pilot, "start ....")
        assert "far to the right" not in screen_text(pilot)
        await pilot.press("right", "right", "right")
        await until_shown(pilot, "far to the right")
        await pilot.press("left", "left", "left")
        await until_shown(pilot, "start ....")


async def test_a_hostile_log_reaches_the_screen_as_text_only(some: MemoryClient) -> None:
    hostile = [
        "\x1b[2J\x1b[31mcleared?\x1b[0m",
        "\x1b]0;owned\x07title",
        "漢字かな wide 🚀 and \ud800 half",
        "x" * 10_000_000,
        "[bold]no markup[/bold] [link=http://example.org]x[/link]",
    ]
    some.log(DEMO, *hostile)
    async with on_stage(some, job="demo-docstrings") as pilot:
        await until_shown(pilot, "[bold]no markup[/bold]")
        strips = pilot.app.screen._compositor.render_strips()
        text = "".join(segment.text for strip in strips for segment in strip)
        assert text.isprintable()
        assert "cleared?" in text
        assert all(strip.cell_length == 80 for strip in strips)


async def test_the_log_is_a_ring(some: MemoryClient) -> None:
    async with on_stage(some, job="demo-docstrings") as pilot:
        view = page(pilot).log_view
        for start in range(0, 60_000, 5000):
            view.write([f"row {index}" for index in range(start, start + 5000)])
        await until_shown(pilot, "row 59999")
        assert MOST_LINES <= len(view.lines) <= MOST_LINES + 1000
        await pilot.press("home")
        await settle(pilot)
        assert "row " in screen_text(pilot)
        kept = view.lines[0].text
        view.write(["one more"])
        await settle(pilot)
        assert view.lines[0].text == kept
        assert kept in screen_text(pilot)


async def test_a_new_attempt_goes_on_in_the_same_log(some: MemoryClient) -> None:
    async with on_stage(some, job="demo-docstrings") as pilot:
        some.record(EventType.ATTEMPT_LOST, DEMO, attempt=1, outcome="lost")
        some.record(EventType.QUEUED, DEMO, cause="loss")
        some.record(EventType.ATTEMPT_INTENDED, DEMO, attempt=2, name="ain-x-a2")
        some.record(EventType.ATTEMPT_RUNNING, DEMO, attempt=2)
        some.log(DEMO, "second life", attempt=2)
        await until_shown(pilot, "second life")
        assert "──── attempt 2 ────" in screen_text(pilot)
        assert "attempt 2" in screen_text(pilot).splitlines()[0]


async def test_a_job_that_is_run_again_is_followed_again(some: MemoryClient) -> None:
    some.record(EventType.ATTEMPT_FAILED, DEMO, attempt=1, outcome="failed")
    some.record(EventType.FAILED, DEMO, code="disk_full", message="No space left on /data.")
    async with on_stage(some, job="demo-docstrings") as pilot:
        await until_shown(pilot, "disk_full: No space left on /data.")
        assert "Free some space" in screen_text(pilot)
        await pilot.press("r")
        await until_shown(pilot, "Run demo-docstrings again?")
        await pilot.press("y")
        await until_shown(pilot, "○ queued")
        some.record(EventType.ATTEMPT_INTENDED, DEMO, attempt=2, name="ain-x-a2")
        some.record(EventType.ATTEMPT_RUNNING, DEMO, attempt=2)
        some.log(DEMO, "second life", attempt=2)
        await until_shown(pilot, "second life")


async def test_a_job_that_ends_well_turns_to_its_result(some: MemoryClient) -> None:
    async with on_stage(some, job="demo-docstrings") as pilot:
        for step in range(10, 17):
            some.step(DEMO, step, 16, scenes.curve(step))
        scenes.finish_demo(some)
        await until_shown(pilot, "✓ succeeded")
        await until_shown(pilot, "held-out loss 3.313 → 2.655  −0.658")
        await until_shown(pilot, "/output/adapter")
        await until_shown(pilot, scenes.AFTER[:30])


async def test_what_the_user_chose_to_look_at_stays(some: MemoryClient) -> None:
    async with on_stage(some, job="demo-docstrings") as pilot:
        await pilot.press("3")
        scenes.finish_demo(some)
        await until_shown(pilot, "✓ succeeded")
        assert page(pilot).query_one("#events").has_focus


async def test_lost_contact_is_told_as_what_it_is(some: MemoryClient) -> None:
    async with on_stage(some, job="legal-summaries") as pilot:
        text = screen_text(pilot)
        assert "? no contact" in text
        assert "No contact with its machine for 5m00s. It may well be training" in text


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (JobState.QUEUED, "Waits for a free place"),
        (JobState.AWAITING_APPROVAL, "a approves it"),
        (JobState.LAUNCHING, "is being started"),
        (JobState.RECOVERING, "goes on from its last checkpoint"),
        (JobState.CANCELLING, "saves a checkpoint"),
    ],
)
async def test_a_waiting_job_says_what_it_waits_for(client: MemoryClient, state: JobState, words: str) -> None:
    client.add(job_row("a", "waiting", state=state))
    async with on_stage(client, job="waiting") as pilot:
        assert words in screen_text(pilot)


async def test_a_deleted_job_closes_its_page_and_says_so(some: MemoryClient) -> None:
    some.record(EventType.SUCCEEDED, DEMO)
    async with on_stage(some, job="demo-docstrings") as pilot:
        await some.delete(DEMO)
        await until_shown(pilot, "demo-docstrings was deleted.")
        assert isinstance(pilot.app.screen, JobsScreen)
        assert "❯" in screen_text(pilot)


async def test_opening_a_job_that_was_just_deleted(some: MemoryClient) -> None:
    async with on_stage(some) as pilot:
        del some.rows[DEMO]
        await pilot.press("enter")
        await until_shown(pilot, "demo-docstrings was deleted.")
        await until(pilot, lambda: DEMO not in pilot.app.model.rows, "its row is gone")


@pytest.mark.parametrize("size", [(20, 5), (40, 12), (80, 24), (109, 40), (110, 28), (160, 45), (300, 100)])
async def test_every_size_shows_state_and_keys(some: MemoryClient, size: tuple[int, int]) -> None:
    async with on_stage(some, size=size, job="demo-docstrings") as pilot:
        for keys in ((), ("1",), ("3",), ("4",), ("l",), ("question_mark",), ("escape", "escape", "escape")):
            await pilot.press(*keys)
            await settle(pilot)
            lines = screen_text(pilot).splitlines()
            assert len(lines) <= size[1]
            assert any(line.strip() for line in lines)
        assert isinstance(pilot.app.screen, JobsScreen)
        assert "demo-do" in screen_text(pilot)


async def test_resizing_while_it_runs(some: MemoryClient) -> None:
    async with on_stage(some, job="demo-docstrings") as pilot:
        for size in ((300, 100), (20, 5), (1, 1), (110, 30), (80, 24)):
            await pilot.resize_terminal(*size)
            await settle(pilot)
        assert "1 Loss" in screen_text(pilot)
        assert page(pilot).log_view.display


async def test_unknown_and_malformed_events_are_shown_as_far_as_they_go(some: MemoryClient) -> None:
    some.record("job.teleported", DEMO, attempt=1, to="mars\x1b[31m")
    some.record(EventType.TRAINER_EVAL, DEMO, attempt=1, step="x", loss=[1])
    some.record(EventType.TRAINER_FINISHED, DEMO, attempt=1, eval_before="?", files=7)
    async with on_stage(some, job="demo-docstrings") as pilot:
        await pilot.press("3")
        await until_shown(pilot, "job.teleported  to mars")
        await pilot.press("4")
        await settle(pilot)


async def test_a_page_opened_before_the_client_is_reads_once_it_is(some: MemoryClient) -> None:
    import asyncio

    gate = asyncio.Event()

    async def open_late() -> MemoryClient:
        await gate.wait()
        return some

    async with on_stage(some, open_client=open_late, job="demo-docstrings") as pilot:
        assert "56%  loss 2.748" in screen_text(pilot)  # from the first paint alone
        assert "step 9/16  loss" not in screen_text(pilot)
        gate.set()
        await until_shown(pilot, "step 9/16  loss 2.748")
        assert some.rows[DEMO].submitted_at < NOW

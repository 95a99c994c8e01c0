"""The jobs screen, used as a person uses it: with keys and a mouse, while jobs come and go."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot

from ainfinity.schema.event import EventType
from ainfinity.schema.states import JobState
from tests.tui import scenes
from tests.tui.double import NOW, MemoryClient, job_row
from tests.tui.stage import on_stage, screen_text, settle, until, until_shown
from tui.screens.job import JobScreen
from tui.screens.jobs import JobsScreen
from tui.widgets.job_table import JobTable


def table(pilot: Pilot[None]) -> JobTable:
    return pilot.app.screen.query_one(JobTable)


async def test_a_newcomer_finds_a_running_job_among_ten_thousand_its_log_its_loss_and_cancels_it(
    client: MemoryClient,
) -> None:
    scenes.add_many(client, 10_000)
    scenes.add_demo(client)
    async with on_stage(client) as pilot:
        first = screen_text(pilot)
        # The running job is the first row, and the last line names the keys.
        assert first.splitlines()[2].startswith("❯● running    demo-docstrings")
        assert first.splitlines()[-1].startswith(" enter Open  l Log  x Cancel  / Filter")
        await pilot.press("enter")
        await until_shown(pilot, "step 9/16  loss 2.748")
        assert "2.748 now, 2.732 best" in screen_text(pilot)
        assert "x Cancel" in screen_text(pilot).splitlines()[-1]
        await pilot.press("x")
        await until_shown(pilot, "Cancel demo-docstrings?")
        await pilot.press("y")
        await until(pilot, lambda: ("cancel", scenes.DEMO) in client.calls, "the cancellation")
        await until_shown(pilot, "◑ cancelling")


@pytest.mark.parametrize("keys", [("end", "home"), ("G", "g"), ("pagedown", "pageup"), ("down", "up"), ("j", "k")])
async def test_moving_there_and_back(client: MemoryClient, keys: tuple[str, str]) -> None:
    scenes.add_many(client, 300)
    async with on_stage(client) as pilot:
        there, back = keys
        await pilot.press(there)
        assert table(pilot).index > 0
        assert "❯" in screen_text(pilot)
        await pilot.press(back)
        assert table(pilot).index == 0


async def test_the_cursor_stops_at_both_ends_and_stays_on_screen(client: MemoryClient) -> None:
    scenes.add_many(client, 100)
    async with on_stage(client) as pilot:
        await pilot.press("up")
        assert table(pilot).index == 0
        for _ in range(6):
            await pilot.press("pagedown")
            await pilot.pause()
            assert "❯" in screen_text(pilot)
        assert table(pilot).index == 99


async def test_the_cursor_stays_on_its_job_while_others_come(some: MemoryClient) -> None:
    async with on_stage(some) as pilot:
        await pilot.press("down", "down")
        job = table(pilot).job
        some.rows["new"] = some.add(job_row("new", "brand-new", state=JobState.PLANNING, submitted_at=NOW))
        some.record(EventType.QUEUED, "new")
        some.record(EventType.ATTEMPT_INTENDED, "new", attempt=1)
        some.record(EventType.ATTEMPT_RUNNING, "new", attempt=1)
        await until_shown(pilot, "brand-new")
        assert screen_text(pilot).splitlines()[2].startswith(" ● running    brand-new")
        assert table(pilot).job == job


async def test_a_job_that_was_looked_at_keeps_the_cursor_when_it_ends(some: MemoryClient) -> None:
    async with on_stage(some) as pilot:
        await pilot.press("enter")
        await settle(pilot)
        scenes.finish_demo(some)
        await until_shown(pilot, "✓ succeeded")
        await pilot.press("escape")
        await settle(pilot)
        assert table(pilot).job == scenes.DEMO
        assert table(pilot).index > 3


async def test_until_a_key_is_pressed_the_cursor_stays_on_top(some: MemoryClient) -> None:
    async with on_stage(some) as pilot:
        scenes.finish_demo(some)
        await until_shown(pilot, "✓ succeeded  demo-docstrings")
        assert table(pilot).index == 0


async def test_enter_opens_escape_returns_to_the_same_row(some: MemoryClient) -> None:
    async with on_stage(some) as pilot:
        await pilot.press("down", "down", "down", "enter")
        await settle(pilot)
        assert isinstance(pilot.app.screen, JobScreen)
        await pilot.press("escape")
        await settle(pilot)
        assert isinstance(pilot.app.screen, JobsScreen)
        assert table(pilot).index == 3


async def test_l_opens_the_log_on_the_full_screen(some: MemoryClient) -> None:
    async with on_stage(some) as pilot:
        await pilot.press("l")
        await until_shown(pilot, "WARNING: no GPU found")
        assert "1 Loss" not in screen_text(pilot)
        await pilot.press("escape")
        await until_shown(pilot, "1 Loss")


async def test_filtering_on_every_key(some: MemoryClient) -> None:
    async with on_stage(some) as pilot:
        await pilot.press("slash", *"sweep")
        await settle(pilot)
        text = screen_text(pilot)
        assert "2 of 13 jobs" in text
        assert "sweep-lr-1e-4" in text
        assert "demo-docstrings" not in text
        await pilot.press("down", "enter")  # the cursor moves while typing; enter keeps the filter
        await settle(pilot)
        assert table(pilot).index == 1
        assert "esc All jobs" in screen_text(pilot)
        await pilot.press("escape")
        await settle(pilot)
        assert "demo-docstrings" in screen_text(pilot)


async def test_a_filter_that_nothing_fits_says_so_and_how_to_leave(some: MemoryClient) -> None:
    async with on_stage(some) as pilot:
        await pilot.press("slash", *"zzz")
        await until_shown(pilot, "No job matches “zzz”")
        await pilot.press("escape")
        await until_shown(pilot, "demo-docstrings")


async def test_keys_for_letters_are_text_in_the_filter(some: MemoryClient) -> None:
    async with on_stage(some) as pilot:
        await pilot.press("slash", *"xql?")
        await settle(pilot)
        assert "“xql?”" in screen_text(pilot)
        assert pilot.app.is_running


async def test_a_mouse_selects_opens_and_presses_the_footer(some: MemoryClient) -> None:
    async with on_stage(some) as pilot:
        await pilot.click(JobTable, offset=(5, 5))
        await settle(pilot)
        assert table(pilot).index == 4
        await pilot.click(JobTable, offset=(5, 5))
        await settle(pilot)
        assert isinstance(pilot.app.screen, JobScreen)
        await pilot.click("KeyBar", offset=(2, 0))  # esc Jobs
        await settle(pilot)
        assert isinstance(pilot.app.screen, JobsScreen)


async def test_saying_no_changes_nothing(some: MemoryClient) -> None:
    async with on_stage(some) as pilot:
        for no in ("n", "escape", "enter"):  # enter: the safe answer has the focus
            await pilot.press("x")
            await until_shown(pilot, "Cancel demo-docstrings?")
            await pilot.press(no)
            await settle(pilot)
        assert [call for call in some.calls if call[0] == "cancel"] == []


async def test_what_cannot_be_cancelled_says_why(some: MemoryClient) -> None:
    async with on_stage(some) as pilot:
        await pilot.press("slash", *"docs-v3", "enter", "x")
        await until_shown(pilot, "docs-v3 is succeeded already: there is nothing to cancel.")
        await pilot.press("r")
        await until_shown(pilot, "only a failed or cancelled job runs again")
        await pilot.press("a")
        await settle(pilot)
        assert {call[0] for call in some.calls}.isdisjoint({"cancel", "retry", "approve"})


async def test_running_a_failed_job_again(some: MemoryClient) -> None:
    async with on_stage(some) as pilot:
        await pilot.press("slash", *"chat-oom", "enter")
        await until_shown(pilot, "CUDA out of memory on rank 3")
        await pilot.press("r")
        await until_shown(pilot, "if the cause stands")
        await pilot.press("right", "enter")
        await until_shown(pilot, "chat-oom is queued again.")
        await until_shown(pilot, "○ queued     chat-oom")


async def test_approving(some: MemoryClient) -> None:
    async with on_stage(some) as pilot:
        await pilot.press("slash", *"big-70b", "enter", "a")
        await until_shown(pilot, "launched on aws/us-west-2 H100:32")
        await pilot.press("y")
        await until_shown(pilot, "big-70b is approved.")


async def test_a_refusal_is_told_with_what_to_do(some: MemoryClient) -> None:
    from ainfinity.core.exceptions import NotAllowed

    some.faults["cancel"] = [NotAllowed("Only its owner may cancel it.", hint="Ask ana.")]
    async with on_stage(some) as pilot:
        await pilot.press("x")
        await until_shown(pilot, "Cancel demo-docstrings?")
        await pilot.press("y")
        await until_shown(pilot, "Only its owner may cancel it. Ask ana.")


async def test_a_read_only_view_offers_and_does_nothing(some: MemoryClient) -> None:
    async with on_stage(some, read_only=True) as pilot:
        assert "x Cancel" not in screen_text(pilot)
        await pilot.press("x")
        await until_shown(pilot, "read-only")
        await pilot.press("w")
        await settle(pilot)
        assert {call[0] for call in some.calls}.isdisjoint({"cancel", "ensure_worker"})


async def test_help_opens_anywhere_and_closes(some: MemoryClient) -> None:
    async with on_stage(some, size=(80, 50)) as pilot:
        for before in ((), ("enter",)):
            await pilot.press(*before, "question_mark")
            await until_shown(pilot, "run a failed or cancelled job again")
            assert "no contact with its machine" in screen_text(pilot)
            await pilot.press("escape")
            await settle(pilot)
            assert "Symbols" not in screen_text(pilot)


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
async def test_quitting_says_that_jobs_go_on_and_closes_the_client(some: MemoryClient, key: str) -> None:
    async with on_stage(some) as pilot:
        await pilot.press(key)
        await until(pilot, lambda: not pilot.app.is_running, "the end")
        words = [str(each) for each in pilot.app._exit_renderables]
    assert words == ["9 jobs go on in the background. `ainfinity` shows them again."]
    assert some.closed


async def test_quitting_without_live_jobs_says_nothing(client: MemoryClient) -> None:
    async with on_stage(client) as pilot:
        await pilot.press("q")
        await until(pilot, lambda: not pilot.app.is_running, "the end")
        assert pilot.app._exit_renderables == []


async def test_only_the_rows_that_changed_are_drawn_again(some: MemoryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async with on_stage(some) as pilot:
        drawn: list[int] = []
        original = JobTable.render_line

        def counting(self: JobTable, y: int):
            drawn.append(y)
            return original(self, y)

        monkeypatch.setattr(JobTable, "render_line", counting)
        some.step("job0000001", 2311, 5000, 1.399, eta=5390.0)
        await until_shown(pilot, "1.399")
        assert set(drawn) == {2}  # below the header and another row
        drawn.clear()
        pilot.app._tick()  # no time has passed
        await settle(pilot)
        assert drawn == []
        some.clock.time += 1  # the ETA of 31 s counts down; that of an hour and the ages read as before
        pilot.app._tick()
        await settle(pilot)
        assert set(drawn) == {1}


async def test_a_second_that_passes_while_the_table_goes_is_harmless(some: MemoryClient) -> None:
    """As it does when the app ends: the timer is stopped after the widgets."""
    async with on_stage(some) as pilot:
        screen = pilot.app.screen
        assert isinstance(screen, JobsScreen)
        await screen.table.remove()
        screen.tick(NOW + 1)

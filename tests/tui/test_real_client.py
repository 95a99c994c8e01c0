"""The screen on the real embedded client and store, with the test in the place of the engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.pilot import Pilot

from ainfinity.client.local import LocalClient
from ainfinity.schema.event import EventType
from ainfinity.schema.states import JobState
from ainfinity.schema.views import JobQuery, Progress
from ainfinity.store import metrics, progress
from ainfinity.store.peek import peek_jobs
from ainfinity.store.store import open_store
from tests.services.conftest import template, work
from tests.services.workplace import ADMIN, Workplace
from tests.tui.stage import screen_text, settle, until, until_shown
from tui.app import AinfinityApp

__all__ = ["template", "work"]


@asynccontextmanager
async def on_real_stage(work: Workplace, **options: Any) -> AsyncGenerator[Pilot[None]]:
    async def open_client() -> LocalClient:
        return LocalClient(open_store(work.settings, work.clock), work.settings, ADMIN, start_workers=False)

    path = work.settings.sqlite_path
    assert path is not None
    app = AinfinityApp(open_client, lambda: peek_jobs(path, JobQuery(limit=None)), clock=work.clock, **options)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        yield pilot


def report(work: Workplace, job: str, step: int, loss: float) -> None:
    """Do what the engine does with a line of the trainer."""
    with work.store.write() as connection:
        metrics.append_chunk(connection, job, 1, [(step, step, work.clock.now(), {"loss": loss})])
        progress.put(connection, job, Progress(step, 10, loss, eta_seconds=30.0, updated_at=work.clock.now()))
    log = work.settings.attempts_dir / f"ain-{job}-a1" / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(f"\x1b[32mstep {step} is done\x1b[0m\n")


async def test_a_run_is_watched_to_its_end(work: Workplace) -> None:
    job = work.in_state(JobState.RUNNING)
    async with on_real_stage(work) as pilot:
        assert "● running" in screen_text(pilot)
        await until_shown(pilot, "no worker")
        report(work, job, 3, 2.875)
        await until_shown(pilot, "2.875")
        await pilot.press("enter")
        await until_shown(pilot, "step 3 is done")
        report(work, job, 4, 2.5)
        await until_shown(pilot, "step 4 is done")
        await until_shown(pilot, "2.500 now, 2.500 best")
        work.record(
            job,
            (EventType.TRAINER_EVAL, {"step": 0, "loss": 3.0}),
            (EventType.TRAINER_EVAL, {"step": 10, "loss": 2.25}),
            (
                EventType.TRAINER_FINISHED,
                {"step": 10, "eval_before": 3.0, "eval_after": 2.25, "output": "/out/adapter"},
            ),
            EventType.ATTEMPT_SUCCEEDED,
            EventType.SUCCEEDED,
        )
        await until_shown(pilot, "held-out loss 3.000 → 2.250  −0.750")
        await until_shown(pilot, "/out/adapter")


async def test_jobs_come_are_cancelled_run_again_and_are_deleted(work: Workplace) -> None:
    async with on_real_stage(work) as pilot:
        assert "No jobs yet." in screen_text(pilot)
        row = work.launch("newcomer")
        await until_shown(pilot, "○ queued     newcomer")
        await pilot.press("x", "y")
        await until_shown(pilot, "⊘ cancelled  newcomer")
        await pilot.press("r", "y")
        await until_shown(pilot, "○ queued     newcomer")
        await pilot.press("enter", "3")
        await until_shown(pilot, "↻ queued again  by local:ann")
        await pilot.press("x", "y")
        await until_shown(pilot, "⊘ cancelled")
        work.service.delete_job(row.id, ADMIN)
        await until_shown(pilot, "newcomer was deleted.")
        await until_shown(pilot, "No jobs yet.")


async def test_approval(work: Workplace) -> None:
    work.in_state(JobState.AWAITING_APPROVAL)
    async with on_real_stage(work, job="first") as pilot:
        await until_shown(pilot, "a approves it")
        await pilot.press("a", "y")
        await until_shown(pilot, "○ queued")


@pytest.mark.parametrize("state", [state for state in JobState if state != JobState.PLANNING])
async def test_every_state_has_its_page(work: Workplace, state: JobState) -> None:
    work.in_state(state)
    async with on_real_stage(work, job="first") as pilot:
        await until_shown(pilot, "first")
        await until(pilot, lambda: pilot.app.client is not None, "an open client")
        await settle(pilot)
        assert "✗ The" not in screen_text(pilot)

"""Screens held to the ones stored as text in golden/. AINFINITY_UPDATE_GOLDEN=1 stores them anew; then look at them."""

from __future__ import annotations

import pytest

from ainfinity.schema.event import EventType
from tests.tui import scenes
from tests.tui.double import MemoryClient
from tests.tui.stage import compare, on_stage, settle


def jobs(client: MemoryClient) -> None:
    scenes.add_some(client)
    scenes.add_demo(client)


def many(client: MemoryClient) -> None:
    jobs(client)
    scenes.add_many(client, 10_000)


def alone(client: MemoryClient) -> None:
    scenes.add_demo(client)


def done(client: MemoryClient) -> None:
    scenes.add_demo(client, steps=16)
    scenes.finish_demo(client)


def failed(client: MemoryClient) -> None:
    scenes.add_demo(client)
    message = "The process used 14.9 GiB and was killed at step 9. hint: lower micro_batch_size"
    client.record(EventType.ATTEMPT_FAILED, scenes.DEMO, attempt=1, exit_code=1, outcome="failed")
    client.record(EventType.FAILED, scenes.DEMO, code="out_of_memory", message=message)


def nothing(client: MemoryClient) -> None:
    pass


SCREENS = [
    ("empty", nothing, None, (), (80, 24)),
    ("jobs", jobs, None, ("down",), (80, 24)),
    ("jobs-one-owner", alone, None, (), (80, 24)),
    ("jobs-10000", many, None, ("end",), (80, 24)),
    ("jobs-filter", jobs, None, ("slash", *"sweep"), (80, 24)),
    ("jobs-no-match", jobs, None, ("slash", *"zzz"), (80, 24)),
    ("jobs-20x5", jobs, None, (), (20, 5)),
    ("jobs-160x40", many, None, (), (160, 40)),
    ("cancel", jobs, None, ("x",), (80, 24)),
    ("cancel-20x5", jobs, None, ("x",), (20, 5)),
    ("help", jobs, None, ("question_mark",), (80, 24)),
    ("job", jobs, "demo-docstrings", (), (80, 24)),
    ("job-events", jobs, "demo-docstrings", ("3",), (80, 24)),
    ("job-details", jobs, "demo-docstrings", ("4",), (80, 24)),
    ("job-log", jobs, "demo-docstrings", ("l",), (80, 24)),
    ("job-20x5", jobs, "demo-docstrings", (), (20, 5)),
    ("job-140x40", done, "demo-docstrings", (), (140, 40)),
    ("job-done", done, "demo-docstrings", (), (80, 24)),
    ("job-failed", failed, "demo-docstrings", (), (80, 24)),
    ("job-no-contact", jobs, "legal-summaries", (), (80, 24)),
]


@pytest.mark.parametrize(("name", "make", "job", "keys", "size"), SCREENS, ids=[screen[0] for screen in SCREENS])
async def test_screen(client: MemoryClient, name: str, make, job: str | None, keys: tuple[str, ...], size) -> None:
    make(client)
    async with on_stage(client, job=job, size=size) as pilot:
        await pilot.press(*keys)
        await settle(pilot)
        compare(pilot, name)

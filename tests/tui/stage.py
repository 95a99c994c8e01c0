"""Running the app in a test: start it on a client, wait until it is at rest, read its screen as text."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from textual.pilot import Pilot

from tests.tui.double import FixedClock, MemoryClient
from tui.app import AinfinityApp

GOLDEN = Path(__file__).parent / "golden"
#: A wait that never ends on a working machine, however slow.
PATIENCE = float(os.environ.get("PATIENCE", "20"))


def make_app(client: MemoryClient, **options: Any) -> AinfinityApp:
    """Return the app on a client that opens at once and has its rows ready."""

    async def open_client() -> MemoryClient:
        return client

    options.setdefault("clock", client.clock)
    first_paint = options.pop("first_paint", lambda: list(client.rows.values()))
    return AinfinityApp(options.pop("open_client", open_client), first_paint, **options)


@asynccontextmanager
async def on_stage(
    client: MemoryClient, *, size: tuple[int, int] = (80, 24), **options: Any
) -> AsyncGenerator[Pilot[None]]:
    """Run the app without a terminal, at rest."""
    app = make_app(client, **options)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        yield pilot


async def settle(pilot: Pilot[Any]) -> None:
    """Wait until all that was begun has reached the screen."""
    for _ in range(2):
        await asyncio.sleep(0.02)
        await pilot.pause(0)


async def until(pilot: Pilot[Any], condition: Callable[[], bool], what: str) -> None:
    """Wait for something that must come about."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"never came about: {what}\n{screen_text(pilot)}")
        await pilot.pause(0.01)


async def until_shown(pilot: Pilot[Any], text: str) -> None:
    """Wait until the screen holds a text."""
    await until(pilot, lambda: text in screen_text(pilot), f"“{text}” on the screen")


def screen_text(pilot: Pilot[Any]) -> str:
    """Return the screen as lines of text, without blanks at their ends."""
    app = pilot.app
    width, height = app.size
    console = Console(width=width, height=height, file=StringIO(), force_terminal=True, record=True)
    console.print(app.screen._compositor.render_update(full=True))  # pyright: ignore
    return "\n".join(line.rstrip() for line in console.export_text(styles=False).splitlines()).rstrip() + "\n"


def compare(pilot: Pilot[Any], name: str) -> None:
    """Hold the screen to the one stored under `name`; AINFINITY_UPDATE_GOLDEN=1 stores it instead."""
    path = GOLDEN / f"{name}.txt"
    shown = screen_text(pilot)
    if os.environ.get("AINFINITY_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(shown, encoding="utf-8")
    stored = path.read_text(encoding="utf-8") if path.exists() else ""
    assert shown == stored, f"{path.name} is another screen now; if that is right: AINFINITY_UPDATE_GOLDEN=1\n{shown}"


__all__ = ["FixedClock", "compare", "make_app", "on_stage", "screen_text", "settle", "until", "until_shown"]

"""Draws docs/images/*.svg: the terminal UI at work on made-up jobs, the same picture every time.

Run it as `make screenshots`. The jobs come from tests/tui/scenes.py through the tests' client in memory, so that a
picture needs neither a database nor a trained model. `--check` draws nothing and fails where a picture is out of date.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

from ainfinity.client.port import Client
from tests.tui import scenes
from tests.tui.double import FixedClock, MemoryClient
from tests.tui.stage import settle
from tui.app import AinfinityApp

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"
SIZE = (100, 30)


def _jobs() -> MemoryClient:
    client = MemoryClient()
    scenes.add_some(client)
    scenes.add_demo(client)
    scenes.add_many(client, 400)
    return client


def _running() -> MemoryClient:
    client = MemoryClient()
    scenes.add_demo(client, steps=73, total=120)
    return client


def _finished() -> MemoryClient:
    client = MemoryClient()
    scenes.add_demo(client, steps=16)
    scenes.finish_demo(client)
    return client


#: Picture, jobs, the job whose page is shown, keys pressed first.
PICTURES: tuple[tuple[str, Callable[[], MemoryClient], str | None, tuple[str, ...]], ...] = (
    ("jobs", _jobs, None, ("down",)),
    ("job", _running, "demo-docstrings", ()),
    ("result", _finished, "demo-docstrings", ()),
)


async def draw(make: Callable[[], MemoryClient], job: str | None, keys: tuple[str, ...]) -> str:
    """Return the screen as SVG after the keys were pressed."""
    client = make()

    async def open_client() -> Client:
        return cast("Client", client)  # the double has all that the screens ask for

    app = AinfinityApp(open_client, lambda: list(client.rows.values()), job=job, clock=FixedClock())
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press(*keys)
        await settle(pilot)
        return self_contained(app.export_screenshot(title="ainfinity"))


def self_contained(svg: str) -> str:
    """Return a picture that fetches no font: pages that show it block that anyway."""
    svg = re.sub(r"@font-face\s*\{.*?\}\s*", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code, monospace", "'Fira Code', 'DejaVu Sans Mono', Menlo, Consolas, monospace")


def main() -> int:
    """Draw, or check, every picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if a picture is out of date")
    check = parser.parse_args().check
    stale = 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, make, job, keys in PICTURES:
        path = FOLDER / f"{name}.svg"
        picture = asyncio.run(draw(make, job, keys))
        if not check:
            path.write_text(picture, encoding="utf-8")
            print(f"wrote {path.relative_to(FOLDER.parents[1])}")
        elif not path.exists() or path.read_text(encoding="utf-8") != picture:
            stale += 1
            print(f"{path} is out of date: run make screenshots", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())

"""A world of the fake backend that outlives every process."""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ainfinity.compute.fake import Machine, World


class WorldFile:
    """A world in a file: it outlives the death of any process, and each call's changes are kept whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def open(self) -> Generator[World]:
        """Hold the file for one call."""
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            world = self._load()
            yield world
            fresh = self.path.with_suffix(".new")
            fresh.write_text(json.dumps(_plain(world)))
            os.replace(fresh, self.path)

    def _load(self) -> World:
        if not self.path.exists():
            return World()
        raw: dict[str, Any] = json.loads(self.path.read_text())
        world = World(released=set(raw["released"]), calls=Counter(raw["calls"]))
        world.outage, world.shown = raw["outage"], set(raw["shown"])
        world.script.update(raw["script"])
        world.machines = {name: [_machine(one) for one in copies] for name, copies in raw["machines"].items()}
        return world


def _plain(world: World) -> dict[str, Any]:
    machines = {name: [asdict(one) for one in copies] for name, copies in world.machines.items()}
    return {
        "machines": machines,
        "released": sorted(world.released),
        "calls": dict(world.calls),
        "script": dict(world.script),
        "outage": world.outage,
        "shown": sorted(world.shown),
    }


def _machine(raw: dict[str, Any]) -> Machine:
    recovery, fate = raw.pop("recovery"), raw.pop("fate")
    return Machine(**raw, recovery=(recovery[0], recovery[1]) if recovery else None, fate=(fate[0], fate[1]))

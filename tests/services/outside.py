"""Stands for the process that asks SkyPilot: answers from what a test put there, and counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ainfinity.core.exceptions import ComputeUnreachable


class Skies:
    """`entries` is what SkyPilot lists; with `down` it does not answer."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.down = False
        self.asked: list[str] = []

    def __call__(self, question: str, arguments: Mapping[str, Any], limit: float) -> Any:
        self.asked.append(question)
        if self.down:
            raise ComputeUnreachable("SkyPilot does not answer.", hint="Start it.")
        if question == "orphans":
            return [one for one in self.entries if one["name"].startswith(arguments["prefix"])]
        return list(self.entries)

    def add(self, name: str, kind: str = "cluster", **given: Any) -> str:
        entry: dict[str, Any] = {
            "kind": kind,
            "ident": name,
            "name": name,
            "status": "UP" if kind == "cluster" else "RUNNING",
            "given": "1x H100:8 slurm/loopback",
            "infra": "slurm/loopback",
            "launched_at": None,
            "price_per_hour": 20.0,
            "backend": "skypilot",
        }
        self.entries.append(entry | given)
        return name

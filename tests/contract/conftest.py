from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ainfinity.client.local import LocalClient
from ainfinity.client.port import Client
from ainfinity.core.config import Settings
from ainfinity.schema.actor import Actor
from ainfinity.store.store import open_store
from tests.services.conftest import template
from tests.services.workplace import Workplace, copy_database

__all__ = ["template"]


@dataclass
class Clients:
    """One installation seen from outside, by clients, and from inside, where `work` plays the engine."""

    work: Workplace
    opened: list[Client] = field(default_factory=list[Client])

    def open(self) -> Client:
        """Another client, as another front has it."""
        store = open_store(self.work.settings, self.work.clock)
        client = LocalClient(store, self.work.settings, Actor("local:ann"), start_workers=False)
        self.opened.append(client)
        return client

    def log(self, job: str, attempt: int) -> Path:
        path = self.work.settings.attempts_dir / f"ain-{job}-a{attempt}" / "log.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


@pytest.fixture(params=["local client on SQLite"])
async def clients(request: pytest.FixtureRequest, tmp_path: Path, template: Path) -> AsyncIterator[Clients]:
    settings = Settings(data_dir=tmp_path / "data", config_dir=tmp_path / "config")
    copy_database(template, settings.data_dir)
    clients = Clients(Workplace(tmp_path, settings))
    yield clients
    for client in clients.opened:
        await client.close()
    clients.work.store.close()

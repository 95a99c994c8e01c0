"""What every test of the terminal UI stands on. A test that takes `client` can be given a real one by overriding it."""

from __future__ import annotations

import pytest

from tests.tui import scenes
from tests.tui.double import MemoryClient


@pytest.fixture
def client() -> MemoryClient:
    """A client without jobs."""
    return MemoryClient()


@pytest.fixture
def some(client: MemoryClient) -> MemoryClient:
    """A client with a job in each state, one of which has a history, a log and a curve."""
    scenes.add_some(client)
    scenes.add_demo(client)
    return client


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is retried be retried at once."""
    monkeypatch.setattr("tui.link.FIRST_WAIT", 0.02)
    monkeypatch.setattr("tui.link.LONGEST_WAIT", 0.05)
    monkeypatch.setattr("tui.link.WORKER_PERIOD", 0.05)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("TEXTUAL_THEME", raising=False)

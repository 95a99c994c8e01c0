"""A machine elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compute.remote.machine import FakeMachine, make_machine


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    return make_machine(tmp_path, monkeypatch)

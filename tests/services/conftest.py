from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ainfinity.core.config import Settings
from ainfinity.store.migrate import ensure_schema
from tests.services.workplace import Workplace, copy_database


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an empty database."""
    folder = tmp_path_factory.mktemp("template")
    ensure_schema(folder / "ainfinity.db")
    return folder


@pytest.fixture
def work(tmp_path: Path, template: Path) -> Iterator[Workplace]:
    settings = Settings(data_dir=tmp_path / "data", config_dir=tmp_path / "config")
    copy_database(template, settings.data_dir)
    work = Workplace(tmp_path, settings)
    yield work
    work.store.close()

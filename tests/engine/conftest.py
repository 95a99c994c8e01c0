from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.workshop import Workshop, shop_settings
from tests.services.conftest import template
from tests.services.workplace import copy_database

__all__ = ["shop", "template"]


@pytest.fixture
def shop(tmp_path: Path, template: Path) -> Iterator[Workshop]:
    settings = shop_settings(tmp_path)
    copy_database(template, settings.data_dir)
    shop = Workshop(tmp_path, settings)
    yield shop
    shop.clear()

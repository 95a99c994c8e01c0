from __future__ import annotations

from tests.engine.conftest import shop, template

__all__ = ["shop", "template"]

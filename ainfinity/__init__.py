"""Fine-tune language models with DeepSpeed on whatever GPUs you can get.

`ainfinity.connect()` is the way in for scripts and notebooks; the `ainfinity` command for terminals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ainfinity.client.connect import Session, connect

__all__ = ["Session", "connect"]


def __getattr__(name: str) -> Any:
    """Import on use, so that `import ainfinity` costs nothing."""
    if name in __all__:
        from ainfinity.client import connect as module

        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

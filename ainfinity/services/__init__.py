"""Use cases. One method is one transaction; none of them waits for a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ainfinity.services.training_service import TrainingService
    from ainfinity.services.training_service import TrainingService as SkyPilotService

__all__ = ["SkyPilotService", "TrainingService"]


def __getattr__(name: str) -> Any:
    """Import the service when asked for; `SkyPilotService` is the name that users of the earlier system import."""
    if name in __all__:
        from ainfinity.services.training_service import TrainingService

        return TrainingService
    raise AttributeError(name)

"""Files in a storage that this computer sees too, as a shared folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ainfinity.compute.outputs import find_fault
from ainfinity.core.exceptions import ComputeUnreachable


class SharedTransfer:
    """The `Transfer` for storage that is mounted here; what lies on a machine's own disk it cannot reach."""

    def verify(self, name: str, job_id: str, storage: str, files: Sequence[Mapping[str, Any]]) -> str:
        """Hash the files where they lie. Errors: ComputeUnreachable: they are not to be seen from here."""
        folder = Path(storage) / job_id / "output"
        if not storage.startswith("/") or not folder.is_dir():
            raise ComputeUnreachable(f"The output of {name} is not to be seen from this computer.")
        return find_fault(folder, files)

    def extend(self, name: str, cluster: str, deadline: float | None) -> None:
        """Errors: ComputeUnreachable: always."""
        raise ComputeUnreachable(f"{cluster} cannot be told another deadline.")

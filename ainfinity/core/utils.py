"""Small helpers that several layers use."""

from __future__ import annotations

from pathlib import Path

from ainfinity.core.exceptions import FolderUnwritable


def make_folder(folder: Path, *, private: bool = True) -> Path:
    """Make a folder and those above it, readable by its owner only, and return it.

    Errors:
        FolderUnwritable: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
    except OSError as error:
        raise FolderUnwritable(
            f"{folder} cannot be made: {error.strerror}.",
            hint="Check its owner and rights, or set AINFINITY_DATA_DIR to a folder of yours.",
        ) from None
    return folder

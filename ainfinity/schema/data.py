"""Data sets as fronts are shown them, and how a job file refers to one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

#: No dot and no slash, so that no name of a data set is taken for a file, nor a mistyped file for a data set.
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")
#: What a hash is called in a job file, before its 64 digits.
HASH_PREFIX: Final = "sha256:"


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """A data set that is kept here. `size` is in bytes; `places` are other folders that hold a copy of it."""

    sha256: str
    name: str
    size: int
    rows: int
    added_at: float
    places: tuple[str, ...] = ()


def is_dataset_name(text: str) -> bool:
    """Whether `text` can be the name of a data set."""
    return _NAME.fullmatch(text) is not None


def is_dataset_ref(text: str) -> bool:
    """Whether `data: text` means a data set that is kept (`NAME` or `sha256:…`), if no file is called so."""
    return is_dataset_name(text) or _HASH.fullmatch(text) is not None


def slug(text: str) -> str:
    """Return the name of a data set made from any text, such as a file's."""
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-_")[:48] or "data"

"""Files that must survive: manifests, flushing to disk, replacing a folder in one step."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Final, TypedDict

MANIFEST: Final = "manifest.json"  # of an export, in its folder
_CHUNK: Final = 4 * 1024 * 1024


class FileEntry(TypedDict):
    """One file of a manifest: path relative to the folder, with forward slashes, size in bytes, sha256 in hex."""

    path: str
    size: int
    sha256: str


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def describe_files(folder: Path) -> list[FileEntry]:
    """The manifest of all files below the folder, sorted by path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        FileEntry(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=sha256_of(path))
        for path in paths
    ]


def damage(folder: Path, entries: list[FileEntry]) -> str | None:
    """What is wrong with the folder, compared with its manifest; None if nothing. Sizes come before contents."""
    for entry in entries:
        try:
            size = (folder / entry["path"]).stat().st_size
        except OSError:
            return f"{entry['path']} is missing"
        if size != entry["size"]:
            return f"{entry['path']} has {size} bytes instead of {entry['size']}"
    for entry in entries:
        if sha256_of(folder / entry["path"]) != entry["sha256"]:
            return f"the contents of {entry['path']} have changed"
    return None


def flush_folder(folder: Path) -> None:
    """Force every file and folder below `folder`, and itself, to the disk."""
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_durably(path: Path, text: str) -> None:
    """Write a small file so that after a crash it holds the old text or the new, never a part."""
    aside = path.with_name(f".{path.name}.writing")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    flush_entry(path.parent)


def flush_entry(folder: Path) -> None:
    """Force the folder's own list of names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(written: Path, target: Path) -> None:
    """Put a fully written folder in the place of `target`, and remove what was there."""
    flush_folder(written)
    old = target.with_name(f".{target.name}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    written.rename(target)
    flush_entry(target.parent)
    shutil.rmtree(old, ignore_errors=True)

"""Copying files to where they are wanted: each written aside, checked by SHA-256, and then moved into place."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ainfinity.compute.remote.transfer import place_in
from ainfinity.core.exceptions import DataInvalid, FolderUnwritable, MissingTool, NotFound, Unreachable

#: Bytes that came and bytes in all.
Progress = Callable[[int, int], None]

#: The package in which fsspec finds each kind of bucket.
_PACKAGES: Final = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "r2": "s3fs"}
_PIECE: Final = 4 << 20


def copy_file(source: Path, target: Path, recorded: str = "") -> Path:
    """Copy one file, unless it is there and equal. `recorded` is the sha256 that it must have.

    Errors:
        DataInvalid: the source is damaged. FolderUnwritable: the target cannot be written.
    """
    digest = sha256_of(source)
    if recorded and recorded != digest:
        raise DataInvalid(f"{source} was changed or damaged after the job ended.", hint="Pull a checkpoint instead.")
    if target.is_file() and sha256_of(target) == digest:
        return target
    aside = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, aside)
        if sha256_of(aside) != digest:
            raise DataInvalid(f"{source} changed while it was copied.", hint="Pull again.")
        os.replace(aside, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise _unwritable(target, error) from error
    return target


def copy_bucket(url: str, target: Path, recorded: Mapping[str, str], progress: Progress) -> list[Path]:
    """Copy what lies below the URL of a bucket to a folder; `recorded` holds the sha256 of files by name.

    What is there and as recorded stays, what broke off is gone on with, and what has no recorded sha256 must at least
    have the bucket's size.

    Errors:
        MissingTool: fsspec, or its package for this kind of bucket, is not installed. NotFound. Unreachable.
        DataInvalid: a file is not what was recorded. FolderUnwritable: the folder cannot be written.
    """
    system, root = _open_bucket(url)
    try:
        sizes: dict[str, int] = {
            str(path)[len(root) :].lstrip("/"): int(info["size"])
            for path, info in system.find(root, detail=True).items()
        }
    except Exception as error:  # noqa: BLE001, each kind of bucket has errors of its own
        raise Unreachable(f"{url} cannot be read: {error}", hint="Check your credentials for it.") from None
    missing = sorted(recorded.keys() - sizes.keys())
    if missing or not sizes:
        raise NotFound(f"{url} holds no {missing[0] if missing else 'files'}.", hint="Was it removed from the bucket?")
    came, total, paths = 0, sum(sizes.values()), list[Path]()
    for name, size in sorted(sizes.items()):
        place = place_in(target, name)
        if not (place.is_file() and place.stat().st_size == size and recorded.get(name, "") == sha256_of(place)):
            _copy_from_bucket(system, f"{root.rstrip('/')}/{name}", size, place, recorded.get(name, ""))
        came += size
        progress(came, total)
        paths.append(place)
    return paths


def sha256_of(path: Path) -> str:
    """Return a file's sha256 in hex. Errors: DataInvalid: it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataInvalid(f"{path} cannot be read: {error.strerror}.", hint="Pull a checkpoint instead.") from error


def _open_bucket(url: str) -> tuple[Any, str]:
    scheme = url.partition("://")[0]
    package = _PACKAGES.get(scheme, f"fsspec's package for {scheme}://")
    hint = f"Install it with `pip install fsspec {package}`, or copy the files with the tools of your cloud."
    try:
        return importlib.import_module("fsspec").core.url_to_fs(url)
    except ImportError:
        raise MissingTool(f"The files are in {url}; reading that takes {package}.", hint=hint) from None
    except ValueError as error:
        raise MissingTool(f"The files are in {url}, which cannot be read from here: {error}.", hint=hint) from None


def _copy_from_bucket(system: Any, source: str, size: int, place: Path, recorded: str) -> None:
    part = place.with_name(f"{place.name}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        begun = part.stat().st_size if part.is_file() and not part.is_symlink() else 0
        for offset in dict.fromkeys((begun if recorded and begun <= size else 0, 0)):
            _read_rest(system, source, part, offset)
            if part.stat().st_size == size and recorded in ("", sha256_of(part)):
                os.replace(part, place)
                return
        part.unlink()
    except OSError as error:
        raise _unwritable(place, error) from error
    raise DataInvalid(f"{source} is not what was written there (sha256 differs).", hint="Pull a checkpoint instead.")


def _read_rest(system: Any, source: str, part: Path, offset: int) -> None:
    with part.open("r+b" if offset else "wb") as file:
        file.truncate(offset)
        file.seek(offset)
        try:
            with system.open(source, "rb") as remote:
                remote.seek(offset)
                while data := remote.read(_PIECE):
                    file.write(data)
        except FileNotFoundError:
            raise NotFound(f"{source} was removed from the bucket.", hint="Pull again.") from None


def _unwritable(target: Path, error: OSError) -> FolderUnwritable:
    return FolderUnwritable(f"{target} cannot be written: {error.strerror or error}.", hint="Choose another folder.")

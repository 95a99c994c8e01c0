"""Read an export again, in another process than the one that wrote it: python -m training.verify OUTPUT

Prints a protocol line of kind `verified` with what was found, or `failed` if that is not what the manifest says. On
a mounted bucket or a network disk this is the first time that the files come back from where they are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

from training.claim import read_claim
from training.errors import EXIT_OK, TrainingError
from training.failures import as_failure
from training.files import MANIFEST, FileEntry, damage, sha256_of
from training.protocol import SEQ_BITS, Emitter

#: Above the numbers of every rank of this start, below those of the next one.
_BASE: Final = 3 << (SEQ_BITS - 2)


def main(argv: Sequence[str] | None = None) -> int:
    """Verify the export in the folder that is the one argument, and return the exit code."""
    parser = argparse.ArgumentParser(prog="training.verify", description="Read an export again and check it.")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="the trainer's output folder")
    parser.add_argument("--checkpoints", type=Path, metavar="DIR", help="default: $AINFINITY_CHECKPOINTS")
    parsed = parser.parse_args(argv)
    emitter = Emitter(base=_base(parsed.checkpoints))
    try:
        folder, files = verify(parsed.output.absolute())
    except (TrainingError, OSError) as error:
        failure = as_failure(error)
        emitter.emit("failed", code=failure.code, message=failure.message, hint=failure.hint, rank=0, step=None)
        return failure.exit_code
    emitter.emit("verified", output=str(folder), files=files)
    return EXIT_OK


def verify(output: Path) -> tuple[Path, list[FileEntry]]:
    """Read the newer of OUTPUT/adapter and OUTPUT/model, and return its folder and what its files are now.

    Raises TrainingError `export_invalid` if there is none, or it is not as its manifest says.
    """
    folder = _export_in(output)
    try:
        found: object = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, list) or not found:
        raise _invalid(f"{folder / MANIFEST} cannot be read")
    manifest = cast("list[FileEntry]", found)
    try:
        files = [_describe(folder, str(entry["path"])) for entry in manifest]
    except (OSError, KeyError, TypeError) as error:
        raise _invalid(f"{folder} cannot be read back: {error}") from None
    if files != manifest and (fault := damage(folder, manifest)) is not None:
        raise _invalid(f"{folder}: {fault}")
    return folder, files


def _export_in(output: Path) -> Path:
    manifests = [path for name in ("adapter", "model") if (path := output / name / MANIFEST).is_file()]
    if not manifests:
        raise _invalid(f"{output} holds no export")
    return max(manifests, key=lambda path: path.stat().st_mtime).parent


def _describe(folder: Path, name: str) -> FileEntry:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise _invalid(f"{folder / MANIFEST} names {name}, which lies outside")
    _forget_cached(path)
    return FileEntry(path=name, size=path.stat().st_size, sha256=sha256_of(path))


def _forget_cached(path: Path) -> None:
    """Have the file read from where it is kept and not from this machine's memory, where the system can do that."""
    advise: Any = getattr(os, "posix_fadvise", None)
    if advise is None:
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        advise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _base(checkpoints: Path | None) -> int:
    folder = checkpoints or Path(os.environ.get("AINFINITY_CHECKPOINTS", "")).expanduser()
    claim = read_claim(folder)
    return ((claim.restarts if claim is not None else 0) << SEQ_BITS) + _BASE


def _invalid(message: str) -> TrainingError:
    hint = "check the storage that holds it; a checkpoint may still be whole: `ainfinity retry` goes on from it"
    return TrainingError("export_invalid", f"the export could not be read back: {message}", hint)


if __name__ == "__main__":
    sys.exit(main())

"""Files from a machine to a folder here: whole or not at all, gone on with after a break, and nowhere else."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

from ainfinity.compute.remote.ssh import Machine, word
from ainfinity.core.exceptions import ComputeUnreachable, DataInvalid, FolderUnwritable, NotFound, Refused

#: Bytes that came and bytes in all.
Progress = Callable[[int, int], None]

#: Files asked for in one connection.
_TOGETHER: Final = 200
#: Seconds that one machine may take to hash a file of any size.
_HASHING: Final = 3600.0
_PART: Final = ".part"
_MISSING: Final = 44
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file below a folder on a machine: its name there, with forward slashes, its size in bytes and its sha256."""

    name: str
    size: int
    sha256: str


def place_in(folder: Path, name: str) -> Path:
    """Return where a file of that name belongs below a folder. Errors: Refused: it would lie outside."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or "\0" in name or any(part in ("..", ".") for part in name.split("/")):
        raise Refused(f"The machine names a file {name!r}, which does not belong in {folder}.")
    path, root = folder.joinpath(*parts), folder.resolve()
    if not path.parent.resolve().is_relative_to(root) or path.is_symlink():
        raise Refused(f"{path} leads out of {folder}.", hint="Remove the link, or choose another folder.")
    return path


def list_files(machine: Machine, folder: str) -> list[str]:
    """Return the names of all files below a folder, sorted and without links. Raises as `hashes`."""
    script = f"cd -- {word(folder)} || exit {_MISSING}\nfind . -type f -print0\n"
    ran = machine.run(["sh", "-s"], script=script)
    if ran.code == _MISSING:
        raise NotFound(f"{folder} is not on {machine.host}.")
    if ran.code:
        raise ComputeUnreachable(f"{folder} on {machine.host} cannot be listed: {ran.errors or ran.code}.")
    names = (os.fsdecode(entry)[2:] for entry in ran.output.split(b"\0") if entry)
    return sorted(name for name in names if not name.endswith(_PART))


def hashes(machine: Machine, folder: str, names: Sequence[str]) -> list[RemoteFile]:
    """Return what files below a folder are now. Errors: NotFound: one is missing. ComputeUnreachable."""
    found: list[RemoteFile] = []
    for batch in _batches(names):
        script = f"cd -- {word(folder)} || exit {_MISSING}\n" + "".join(
            f"[ -f {_inner(name)} ] || {{ echo {_inner(name)} >&2; exit {_MISSING}; }}\n"
            f"wc -c <{_inner(name)}; sha256sum <{_inner(name)}\n"
            for name in batch
        )
        ran = machine.run(["sh", "-s"], script=script, limit=_HASHING)
        if ran.code == _MISSING:
            raise NotFound(f"{ran.errors or folder} is missing on {machine.host}.")
        words = ran.output.split()  # size, digest and "-" for each
        if ran.code or len(words) != 3 * len(batch):
            raise ComputeUnreachable(f"{folder} on {machine.host} cannot be read: {ran.errors or ran.code}.")
        sizes, digests = map(int, words[::3]), (digest.decode() for digest in words[1::3])
        found += [RemoteFile(*entry) for entry in zip(batch, sizes, digests, strict=True)]
    return found


def fetch_folder(machine: Machine, source: str, target: Path, progress: Progress | None = None) -> list[Path]:
    """Fetch all that lies below a folder now; see `fetch_files`. Errors: also NotFound."""
    return fetch_files(machine, source, hashes(machine, source, list_files(machine, source)), target, progress)


def fetch_files(
    machine: Machine, source: str, files: Sequence[RemoteFile], target: Path, progress: Progress | None = None
) -> list[Path]:
    """Fetch files below `source` on a machine to `target` and return their paths.

    What is there already and equal stays; what broke off is gone on with. Each file is written beside its place,
    checked, forced to the disk, and then moved there.

    Errors:
        ComputeUnreachable: the machine is lost; what came stays, for the next try.
        NotFound: a file is not there. DataInvalid: one is not what it should be.
        FolderUnwritable: the folder cannot be written. Refused: a name leads out of it.
    """
    places = {file.name: place_in(target, file.name) for file in files}
    fetch = _Fetch(machine, source, sum(file.size for file in files), progress or _no_progress)
    with _writing(target):
        missing = [file for file in files if not fetch.has(file, places[file.name])]
        for batch in _batches(missing):
            # Two tries: what was left of an earlier one may be of another file.
            again = fetch.get(batch, places)
            damaged = fetch.get(again, places) if again else []
            if damaged:
                raise DataInvalid(
                    f"{damaged[0].name} on {machine.host} is not what was written there (sha256 differs).",
                    hint="Pull a checkpoint instead.",
                )
    return [places[file.name] for file in files]


class _Fetch:
    """One fetching of files."""

    def __init__(self, machine: Machine, source: str, total: int, progress: Progress) -> None:
        self._machine = machine
        self._source = source
        self._total = total
        self._progress = progress
        self._came = 0

    def has(self, file: RemoteFile, place: Path) -> bool:
        """Whether the file is in its place already."""
        if not place.is_file() or place.stat().st_size != file.size or _sha256(place) != file.sha256:
            return False
        self._report(file.size)
        return True

    def get(self, files: Sequence[RemoteFile], places: dict[str, Path]) -> list[RemoteFile]:
        """Fetch files in one connection, one after the other, and return those that came out wrong."""
        offsets = [_begun(file, places[file.name]) for file in files]
        self._report(sum(offsets))
        wrong: list[RemoteFile] = []
        with self._machine.stream(["sh", "-s"], script=self._script(files, offsets)) as stream:
            source = _Bytes(stream.pieces)
            for file, offset in zip(files, offsets, strict=True):
                part = _part_of(places[file.name])
                came = self._copy(source, part, file.size - offset)
                if came < file.size - offset:
                    break
                if not _put_in_place(part, places[file.name], file):
                    self._report(-file.size)
                    wrong.append(file)
            source.skip()
        self._check(stream.code, stream.errors, files, places)
        return wrong

    def _script(self, files: Sequence[RemoteFile], offsets: Sequence[int]) -> str:
        """Missing files are told before anything is sent, and each sends as many bytes as are waited for, or fewer."""
        lines = [f"cd -- {word(self._source)} || {{ echo {word(self._source)} >&2; exit {_MISSING}; }}"]
        for file in files:
            name = _inner(file.name)
            lines.append(f'[ "$(wc -c <{name})" -eq {file.size} ] || {{ echo {name} >&2; exit {_MISSING}; }}')
        lines += [
            f"tail -c +{offset + 1} {_inner(file.name)} | head -c {file.size - offset}"
            for file, offset in zip(files, offsets, strict=True)
            if offset < file.size
        ]
        return "\n".join(lines) + "\n"

    def _copy(self, source: _Bytes, part: Path, count: int) -> int:
        part.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(part, flags, 0o600), "ab") as file:
            came = 0
            while came < count and (data := source.take(count - came)):
                file.write(data)
                came += len(data)
                self._report(len(data))
            file.flush()
            os.fsync(file.fileno())
        return came

    def _check(self, code: int, errors: str, files: Sequence[RemoteFile], places: dict[str, Path]) -> None:
        if code == _MISSING:
            name = errors.splitlines()[-1] if errors else self._source
            raise NotFound(f"{name} is missing on {self._machine.host}, or has another size than it had.")
        if code or any(_part_of(places[file.name]).exists() for file in files):
            raise ComputeUnreachable(f"{self._machine.host} stopped sending: {errors or f'exit code {code}'}.")

    def _report(self, count: int) -> None:
        self._came += count
        self._progress(self._came, self._total)


class _Bytes:
    """Bytes by number from pieces of any size."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = memoryview(b"")

    def take(self, most: int) -> memoryview:
        """Return up to `most` bytes; none at the end."""
        if not self._held:
            self._held = memoryview(next(self._pieces, b""))
        taken, self._held = self._held[:most], self._held[most:]
        return taken

    def skip(self) -> None:
        """Read to the end what nobody waits for."""
        for _ in self._pieces:
            pass


def _begun(file: RemoteFile, place: Path) -> int:
    """Return how many bytes an earlier try left; what cannot be a part of the file is removed."""
    part = _part_of(place)
    try:
        size = part.lstat().st_size
    except FileNotFoundError:
        return 0
    if part.is_symlink() or not part.is_file() or size > file.size:
        part.unlink()
        return 0
    return size


def _put_in_place(part: Path, place: Path, file: RemoteFile) -> bool:
    if part.stat().st_size != file.size or _sha256(part) != file.sha256.lower():
        part.unlink()
        return False
    os.replace(part, place)
    handle = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return True


def _part_of(place: Path) -> Path:
    return place.with_name(f"{place.name}{_PART}")


def _inner(name: str) -> str:
    return word(f"./{name}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _batches(items: Sequence[_Item]) -> Iterable[Sequence[_Item]]:
    return (items[start : start + _TOGETHER] for start in range(0, len(items), _TOGETHER))


@contextlib.contextmanager
def _writing(target: Path) -> Generator[None]:
    try:
        target.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise FolderUnwritable(
            f"{target} cannot be written: {error.strerror or error}.",
            hint="Free some space or choose another folder; what came stays.",
        ) from error


def _no_progress(came: int, total: int) -> None:
    pass

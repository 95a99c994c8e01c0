"""What is remembered of an attempt elsewhere: `<attempts_dir>/<name>/remote.json`.

It saves asking, and tells of what is gone. Where it is lost, the attempt is found again by its name.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, cast

from ainfinity.compute.remote.rows import Mode

_RECORD: Final = "remote.json"
_RELEASED: Final = "remote-released.json"
_DEADLINE: Final = "remote-deadline"


@dataclass(slots=True)
class End:
    """How an attempt's job ended, and when that was learnt (Unix seconds)."""

    phase: str
    exit_code: int | None = None
    code: str = ""
    reason: str = ""
    at: float = 0.0


@dataclass(slots=True)
class Record:
    """One attempt. `cluster` is the one it has or, of a managed job, had last."""

    name: str
    mode: Mode
    job: str = ""
    cluster: str = ""
    #: The number in the cluster's queue, or of the managed job.
    job_id: int | None = None
    #: The launch that is under way at the API server.
    request_id: str = ""
    launched_at: float = 0.0
    #: Whether the API server ever took a launch of it.
    taken: bool = False
    #: Where its output goes; "" for the machine's own disk.
    storage: str = ""
    #: Whether its cluster or managed job has been seen.
    seen: bool = False
    #: Whether its job was seen to run.
    ran: bool = False
    #: When its end was first ordered; None where it was not.
    stopped_at: float | None = None
    #: Whether the cluster was taken down that a controller which failed may have left.
    swept: bool = False
    #: Whether nothing of it is left, as far as SkyPilot knows.
    gone: bool = False
    end: End | None = None
    given: str = ""
    price_per_hour: float | None = None
    #: What the price is of: a cluster, after so many recoveries.
    priced: str = ""
    recoveries: int = 0
    #: When its machines began to cost; None where that is unknown.
    billed_from: float | None = None

    @property
    def is_adopted(self) -> bool:
        """Whether plain SkyPilot started it; its name here tells its kind, and which adoption of it this is."""
        return ":" in self.name

    @property
    def sky_name(self) -> str:
        """What SkyPilot calls its cluster."""
        return self.name.removeprefix("cluster:").partition("@")[0]

    @property
    def handle(self) -> str:
        """What the engine stores of it."""
        return self.name if self.is_adopted else f"{self.mode}:{self.name}"


def adopted_record(name: str) -> Record:
    """Return a first record of what is adopted as `cluster:NAME` or `managed:ID`, the second time with `@2`."""
    kind, _, ident = name.partition("@")[0].partition(":")
    if kind == "managed":
        return Record(name, "managed", job_id=int(ident), taken=True, seen=True)
    return Record(name, "cluster", cluster=ident, taken=True, seen=True)


class Records:
    """The records of all attempts that are not released."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Return the attempt's own folder."""
        return self.folder / name

    def read_all(self) -> dict[str, Record]:
        """Return what is remembered, by name; what cannot be read is left out, as if it were lost."""
        return {record.name: record for name in self._names() if (record := self.read(name)) is not None}

    def _names(self) -> Iterator[str]:
        try:
            with os.scandir(self.folder) as entries:
                yield from sorted(entry.name for entry in entries if os.path.exists(f"{entry.path}/{_RECORD}"))
        except (FileNotFoundError, NotADirectoryError):
            return

    def read(self, name: str) -> Record | None:
        """Return what is remembered of an attempt; None where that is nothing, or damaged."""
        try:
            found = json.loads((self.folder / name / _RECORD).read_bytes())
            return _read(cast("dict[str, Any]", found))
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    def write(self, record: Record, *, durably: bool = False) -> None:
        """Keep a record: complete or not at all, and with `durably` on the disk for good. Raises OSError."""
        folder = self.folder / record.name
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f".{_RECORD}.{secrets.token_hex(4)}"
        try:
            with aside.open("xb") as file:
                file.write(json.dumps(asdict(record)).encode())
                if durably:
                    file.flush()
                    os.fsync(file.fileno())
            aside.replace(folder / _RECORD)
        finally:
            aside.unlink(missing_ok=True)

    def deadline(self, name: str) -> float | None:
        """Return when the attempt is to end itself, as it was told last."""
        try:
            return float((self.folder / name / _DEADLINE).read_text())
        except (OSError, ValueError):
            return None

    def set_deadline(self, name: str, deadline: float | None) -> None:
        """Keep what the attempt was told; for reading its end later, so that a full disk is no fault."""
        with contextlib.suppress(OSError):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            (self.folder / name / _DEADLINE).write_text("" if deadline is None else str(deadline))

    def release(self, name: str) -> None:
        """Forget an attempt; its folder stays. Raises OSError."""
        try:
            (self.folder / name / _RECORD).replace(self.folder / name / _RELEASED)
        except FileNotFoundError:
            return


def _read(found: dict[str, Any]) -> Record:
    known = {field.name for field in fields(Record)}
    values = {key: value for key, value in found.items() if key in known}
    if values.get("end") is not None:
        values["end"] = End(**values["end"])
    if values.get("mode") not in ("cluster", "managed"):
        raise ValueError("no mode")
    return Record(**values)

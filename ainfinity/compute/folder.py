"""The folder of one local attempt and the records in it.

Each record is one small JSON file that appears complete or not at all, and is on the disk before anyone acts on it.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ainfinity.compute.processes import Identity, identify, is_alive, machine_id

#: What a shell says of a process that SIGTERM ended.
EXIT_TERMINATED = 143
#: What a file with a deadline holds when there is to be none.
NO_DEADLINE = "none"
#: Room kept on the disk for the exit record, so that it can be written when the disk is full.
_RESERVED = 4096


class AttemptFolder:
    """The files of one attempt.

    `claim.json` is created by whoever may run the attempt, and nobody else ever may: that makes a launch happen
    exactly once, whoever asks how often. `exit.json` is written when nothing of the attempt is left alive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.request = path / "request.json"
        self.recipe = path / "recipe.json"
        #: What the trainer writes, and the supervisor if it cannot do its work.
        self.log = path / "log.txt"
        self.claim = path / "claim.json"
        self.exit = path / "exit.json"
        self.stop = path / "stop.json"
        #: Another deadline than the request's, once one is given; the trainer reads it too.
        self.deadline = path / "deadline"
        #: A copy of the trainer's package, so that an upgrade of ainfinity does not change a running attempt.
        self.code = path / "code"
        self._reserve = path / f".exit.{secrets.token_hex(4)}"

    @property
    def mark(self) -> str:
        """What the environment of the attempt's processes holds under `processes.MARK`."""
        return str(self.path.resolve())

    def claim_for_me(self) -> bool:
        """Claim the attempt for the calling process; False if it was claimed before. Raises OSError."""
        return self._claim(identify(os.getpid()) or Identity(os.getpid(), ""))

    def abandon(self, reason: str) -> bool:
        """Claim the attempt so that it never runs, and record that; False if it was claimed before. Raises OSError."""
        if not self._claim(Identity(0, "")):
            return False
        self.write_exit(EXIT_TERMINATED, reason)
        return True

    def _claim(self, owner: Identity) -> bool:
        # First the room for the exit record: whoever runs the attempt can say how it ended, full disk or not.
        try:
            self._reserve_exit()
            claimed = self._create_claim(owner)
        except OSError:
            self._reserve.unlink(missing_ok=True)
            raise
        if not claimed:
            self._reserve.unlink(missing_ok=True)
        return claimed

    def _create_claim(self, owner: Identity) -> bool:
        record = {
            "pid": owner.pid,
            "start": owner.start,
            "machine": machine_id(),
            "host": os.uname().nodename,
            "at": time.time(),
        }
        return create_once(self.claim, record)

    def owner(self) -> Owner | None:
        """Return who claimed the attempt, or None if nobody did."""
        record = read_record(self.claim)
        return None if record is None else Owner(record)

    def _reserve_exit(self) -> None:
        with self._reserve.open("wb") as file:
            file.write(b" " * _RESERVED)
            file.flush()
            os.fsync(file.fileno())

    def write_exit(self, code: int | None, reason: str) -> None:
        """Record how the attempt ended, in the room that the claim reserved. Raises OSError."""
        record = json.dumps({"code": code, "reason": reason[:1000], "at": time.time()}).encode()
        with self._reserve.open("r+b") as file:
            file.write(record.ljust(_RESERVED))
            file.flush()
            os.fsync(file.fileno())
        self._reserve.replace(self.exit)
        _sync_folder(self.path)


class Owner:
    """The process that claimed an attempt; pid 0 stands for nobody: the attempt was stopped before it began."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.identity = Identity(int(record.get("pid", 0)), str(record.get("start", "")))
        self.host = str(record.get("host", ""))
        self.is_elsewhere = bool(self.identity.pid) and str(record.get("machine", "")) != machine_id()

    @property
    def is_alive(self) -> bool:
        """Whether this process, and not a later one with its pid, is alive on this machine."""
        return is_alive(self.identity)


def read_deadline(path: Path, launched: float | None) -> float | None:
    """Return the deadline in a file, or the one that the attempt was launched with if it holds none.

    Errors:
        OSError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
        return None if text == NO_DEADLINE else float(text)
    except (FileNotFoundError, ValueError):
        return launched


def read_record(path: Path) -> dict[str, Any] | None:
    """Return a record, or None if there is none; a damaged one, which only a damaged disk can leave, reads as empty.

    Errors:
        OSError: it cannot be read.
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write or replace a record. Raises OSError."""
    _replace(path, json.dumps(record))


def write_deadline(path: Path, deadline: float | None) -> None:
    """Write or replace a deadline. Raises OSError."""
    _replace(path, NO_DEADLINE if deadline is None else repr(deadline))


def _replace(path: Path, text: str) -> None:
    aside = _write_aside(path, text)
    try:
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    _sync_folder(path.parent)


def create_once(path: Path, record: Mapping[str, Any]) -> bool:
    """Write a record that is not there yet; False if it is. Of any number of callers exactly one gets True.

    Errors:
        OSError: it cannot be written.
    """
    aside = _write_aside(path, json.dumps(record))
    try:
        # Not O_EXCL: with a link the record is complete from the moment it can be seen.
        os.link(aside, path)
    except FileExistsError:
        return False
    finally:
        aside.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return True


def _write_aside(path: Path, text: str) -> Path:
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with aside.open("xb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    return aside


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

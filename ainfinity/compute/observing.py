"""What the folders and the processes of this machine tell about its attempts."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ainfinity.compute.folder import AttemptFolder, read_record
from ainfinity.compute.processes import Process, list_processes, members_of
from ainfinity.core.clock import Clock
from ainfinity.core.exceptions import ComputeUnreachable, Refused
from ainfinity.domain.observation import Observation, Phase

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
#: How long after a launch its supervisor may be neither claimed nor found among the processes. Seconds.
_START_LAG = 5.0
_EXIT_NO_SUPERVISOR = 1


class Look:
    """One look at the machine's processes, taken when it is first needed and shared by all attempts."""

    def __init__(self) -> None:
        self._processes: list[Process] | None = None

    def has(self, folder: AttemptFolder) -> bool:
        """Whether anything of the attempt is alive."""
        if self._processes is None:
            self._processes = list_processes()
        return bool(members_of(folder.mark, self._processes))


class Observer:
    """Reads the attempts under one folder. An index of those not released spares walking all that ever were."""

    def __init__(self, attempts_dir: Path, clock: Clock) -> None:
        self._attempts_dir = attempts_dir
        self._clock = clock
        self.index = attempts_dir / "live"

    def folder(self, name: str) -> AttemptFolder:
        """Return the attempt's folder. Raises Refused if that is no name of an attempt."""
        if not _NAME.fullmatch(name):
            raise Refused(f"{name!r} is no name of an attempt.", hint="This is a fault of the caller.")
        return AttemptFolder(self._attempts_dir / name)

    def names(self) -> list[str]:
        """Return the names of all attempts that are not released. Raises OSError."""
        try:
            return sorted(name for name in os.listdir(self.index) if _NAME.fullmatch(name))
        except FileNotFoundError:
            return []

    def observe(self, name: str, look: Look) -> Observation | None:
        """Return what is known of one attempt, or None if it was never begun and nobody is about to.

        The order matters: a supervisor claims, runs, records and goes, so what was read first may be the past by the
        time the processes are looked at. Then it is read again.

        Errors:
            OSError: its folder cannot be read.
            ComputeUnreachable: it kept changing while it was looked at.
        """
        folder = self.folder(name)
        for _ in range(3):
            owner = folder.owner()
            record = read_record(folder.exit)
            if record is not None:
                return self._seen(name, Phase.EXITED, False, str(record.get("reason", "")), record.get("code"))
            if owner is None:
                seen = self._observe_unclaimed(name, folder, look)
                if not folder.claim.exists():
                    return seen
            elif owner.is_elsewhere:
                return self._seen(name, Phase.RUNNING, True, f"it runs on {owner.host}, out of sight from here")
            elif owner.is_alive:
                return self._seen(name, Phase.RUNNING, True)
            else:
                left = look.has(folder)
                if not folder.exit.exists():
                    reason = "its supervisor is gone without a word: killed, or the machine went down"
                    return self._seen(name, Phase.VANISHED, left, reason)
        raise ComputeUnreachable(f"The records of {name} keep changing.", hint="It is looked at again.")

    def is_over(self, name: str, look: Look) -> bool:
        """Whether nothing of the attempt is alive. Raises as `observe`."""
        seen = self.observe(name, look)
        return seen is None or not seen.machine

    def _observe_unclaimed(self, name: str, folder: AttemptFolder, look: Look) -> Observation | None:
        entry = read_record(self.index / name) or {}
        just_now = abs(self._clock.now() - float(entry.get("at", 0.0))) < _START_LAG
        if just_now or look.has(folder):
            return self._seen(name, Phase.SETTING_UP, True)
        if has_complaint(folder):
            return self._seen(name, Phase.EXITED, False, "its supervisor could not start", _EXIT_NO_SUPERVISOR)
        return None

    def _seen(
        self, name: str, phase: Phase, machine: bool, reason: str = "", exit_code: int | None = None
    ) -> Observation:
        return Observation(name, phase, machine, str(self.folder(name).path), exit_code, reason)


def has_complaint(folder: AttemptFolder) -> bool:
    """Whether a supervisor printed something; of one that made no claim this is why it could not. Raises OSError."""
    try:
        return folder.log.stat().st_size > 0
    except FileNotFoundError:
        return False

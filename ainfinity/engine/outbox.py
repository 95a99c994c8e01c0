"""Telling what is owed: each notice exactly once at each place.

A delivery is claimed, told, then settled. A worker that dies in between leaves the claim to run out; the next one
tells again, and a notifier that can look back (`told`) is asked first.
"""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ainfinity.core.exceptions import AinfinityError, LeaseLost
from ainfinity.engine.fence import Fence
from ainfinity.store import events, jobs, outbox

_log = logging.getLogger(__name__)


class Notifier(Protocol):
    """One place where notices are told."""

    def told(self, notice: Mapping[str, Any]) -> bool:
        """Whether the notice of this `seq` and `job_id` was told before; False where the place cannot know."""
        ...

    def tell(self, notice: Mapping[str, Any]) -> None:
        """Tell it. Raises OSError or AinfinityError if that did not work."""
        ...


class FileNotifier:
    """Appends notices as JSON lines to a file, which looks back by event: row ids may come again, in a new database."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def told(self, notice: Mapping[str, Any]) -> bool:
        """Look for the event among the lines of the file."""
        mark = self._line(notice, cut=True)
        try:
            with self.path.open(encoding="utf-8") as file:
                return any(line.startswith(mark) for line in file)
        except FileNotFoundError:
            return False

    def tell(self, notice: Mapping[str, Any]) -> None:
        """Append one line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(self._line(notice) + "\n")

    def _line(self, notice: Mapping[str, Any], *, cut: bool = False) -> str:
        key = {name: notice[name] for name in ("job_id", "seq")}
        return json.dumps(key)[:-1] + ", " if cut else json.dumps(key | dict(notice), ensure_ascii=False)


class CommandNotifier:
    """Runs a command with the notice as JSON on its standard input."""

    def __init__(self, command: str, timeout: float = 5.0) -> None:
        self.command = command
        self.timeout = timeout

    def told(self, notice: Mapping[str, Any]) -> bool:
        """A command cannot be asked."""
        return False

    def tell(self, notice: Mapping[str, Any]) -> None:
        """Run the command through the shell, as the user who set it would."""
        done = subprocess.run(  # noqa: S602  # the command is the user's own setting
            self.command,
            shell=True,
            input=json.dumps(notice),
            text=True,
            timeout=self.timeout,
            check=False,
            capture_output=True,
        )
        if done.returncode:
            raise OSError(f"exit code {done.returncode}: {done.stderr.strip()[-200:]}")


class Outbox:
    """Delivers what is owed to the engine's own places."""

    CLAIM = 60.0

    def __init__(self, fence: Fence, notifiers: Mapping[str, Notifier], probe: Callable[[str], None]) -> None:
        self.fence = fence
        self.notifiers = notifiers
        self.probe = probe
        self._took_over = False

    def run(self) -> int:
        """Tell everything that is due and return how many notices that were."""
        if not self._took_over:
            # Whoever held the lease before tells nothing any more, so its claims need not run out first.
            with self.fence.write() as connection:
                outbox.void_claims(connection, list(self.notifiers))
            self._took_over = True
        return sum(self._run_place(place, notifier) for place, notifier in self.notifiers.items())

    def _run_place(self, place: str, notifier: Notifier) -> int:
        store = self.fence.store
        with store.read() as connection:
            if not outbox.is_due(connection, place, store.clock.now()):
                return 0
        with self.fence.write() as connection:
            claimed = outbox.claim(connection, place, store.clock.now(), self.CLAIM, 50)
            notices = [self._notice(connection, claim) for claim in claimed]
        for notice in notices:
            problem = self._tell(notifier, notice)
            self.probe("outbox:told")
            with self.fence.write() as connection:
                outbox.settle(connection, notice["id"], not problem, store.clock.now(), problem)
            self.probe("outbox:settled")
        return len(notices)

    def _notice(self, connection: Any, claim: outbox.Claim) -> dict[str, Any]:
        event = events.get(connection, claim.event_seq)
        rows = jobs.by_ids(connection, [claim.job_id])
        row = rows[0] if rows else None
        return {
            "id": claim.id,
            "event": str(event.type),
            "seq": event.seq,
            "at": event.at,
            "job_id": claim.job_id,
            "job": row.name if row else "",
            "state": row.state if row else "",
            "owner": row.owner if row else "",
            "loss": row.progress.loss if row else None,
            "message": row.error_message if row else "",
        }

    def _tell(self, notifier: Notifier, notice: Mapping[str, Any]) -> str:
        try:
            if not notifier.told(notice):
                self.fence.must_hold()  # no transaction fences what is told; a late owner must not say it again
                notifier.tell(notice)
        except LeaseLost:
            raise
        except (OSError, AinfinityError, subprocess.SubprocessError) as error:
            _log.warning("notice %s was not told: %s", notice["id"], error)
            return str(error)[:500] or type(error).__name__
        return ""

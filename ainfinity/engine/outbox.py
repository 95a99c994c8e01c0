"""Telling what is owed: each notice exactly once at each place.

A delivery is claimed, told, then settled. A worker that dies in between leaves the claim to run out; the next one
tells again, and a notifier that can look back (`told`) is asked first. What may take long is told on a thread, so that
a hook that hangs never holds up a tick; only the tick's own thread writes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ainfinity.core.exceptions import AinfinityError, LeaseLost
from ainfinity.engine.fence import Fence
from ainfinity.engine.notices import notice_of
from ainfinity.store import outbox

_log = logging.getLogger(__name__)


class Notifier(Protocol):
    """One place where notices are told."""

    #: Whether telling may take long; it is done on a thread then.
    slow: ClassVar[bool]

    def told(self, notice: Mapping[str, Any]) -> bool:
        """Whether the notice of this `seq` and `job_id` was told before; False where the place cannot know."""
        ...

    def tell(self, notice: Mapping[str, Any]) -> None:
        """Tell it. Raises OSError or AinfinityError if that did not work."""
        ...


class FileNotifier:
    """Appends notices as JSON lines to a file, which looks back by event: row ids may come again, in a new database."""

    slow: ClassVar[bool] = False

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
    """Runs a command with the notice as JSON on its standard input, for at most `timeout` seconds."""

    slow: ClassVar[bool] = True

    def __init__(self, command: str, timeout: float = 5.0) -> None:
        self.command = command
        self.timeout = timeout

    def told(self, notice: Mapping[str, Any]) -> bool:
        """A command cannot be asked."""
        return False

    def tell(self, notice: Mapping[str, Any]) -> None:
        """Run the command through the shell, as the user who set it would."""
        process = subprocess.Popen(  # noqa: S602  # the command is the user's own setting
            self.command,
            shell=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            _, err = process.communicate(json.dumps(notice), self.timeout)
        except subprocess.TimeoutExpired:
            # Of the shell alone, whatever it started would go on and hold the pipe open.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise OSError(f"it took more than {self.timeout:g} s") from None
        if process.returncode:
            raise OSError(f"exit code {process.returncode}: {err.strip()[-200:]}")


class _Telling:
    """A batch of notices that is told on a thread. `told` yields (notice, problem) pairs as they come."""

    def __init__(
        self, notices: Sequence[Mapping[str, Any]], tell: Callable[[Mapping[str, Any]], str], wake: Callable[[], None]
    ) -> None:
        self._notices = notices
        self._tell = tell
        self._wake = wake
        self._done: queue.SimpleQueue[tuple[Mapping[str, Any], str | Exception]] = queue.SimpleQueue()
        self.ending = False
        self.thread = threading.Thread(target=self._run, name="ainfinity-notices", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        for notice in self._notices:
            if self.ending:
                return
            try:
                self._done.put((notice, self._tell(notice)))
            except Exception as error:  # noqa: BLE001  # raised where the batch is taken in
                self._done.put((notice, error))
                return
            finally:
                self._wake()

    def take(self) -> list[tuple[Mapping[str, Any], str | Exception]]:
        """Return what was told since the last time."""
        taken: list[tuple[Mapping[str, Any], str | Exception]] = []
        with contextlib.suppress(queue.Empty):
            while True:
                taken.append(self._done.get_nowait())
        return taken


class Outbox:
    """Delivers what is owed to the engine's own places."""

    CLAIM = 60.0
    #: Notices claimed at once; few for a slow place, so that all are told before the claims run out.
    BATCH = 50
    SLOW_BATCH = 8

    def __init__(self, fence: Fence, notifiers: Mapping[str, Notifier], probe: Callable[[str], None]) -> None:
        self.fence = fence
        self.notifiers = notifiers
        self.probe = probe
        self._took_over = False
        self._tellings: dict[str, _Telling] = {}

    def run(self) -> int:
        """Tell everything that is due, or begin to, and return how many notices were settled."""
        if not self._took_over:
            # Whoever held the lease before tells nothing any more, so its claims need not run out first.
            with self.fence.write() as connection:
                outbox.void_claims(connection, list(self.notifiers))
            self._took_over = True
        return sum(self._run_place(place, notifier) for place, notifier in self.notifiers.items())

    def close(self) -> None:
        """Wait for what is being told right now, a few seconds at most, and settle it, so that none is told twice."""
        for telling in self._tellings.values():
            telling.ending = True
        for telling in self._tellings.values():
            telling.thread.join(self.CLAIM)
            self._take_in(telling)
        self._tellings.clear()

    def _run_place(self, place: str, notifier: Notifier) -> int:
        if not notifier.slow:
            notices = self._claim(place, self.BATCH)
            for notice in notices:
                self._settle(notice, self._tell(notifier, notice))
            return len(notices)
        telling, settled = self._tellings.get(place), 0
        if telling is not None:
            ended = not telling.thread.is_alive()
            settled = self._take_in(telling)
            if not ended:
                return settled
            del self._tellings[place]
        notices = self._claim(place, self.SLOW_BATCH)
        if notices:
            tell = partial(self._tell_aside, notifier)
            self._tellings[place] = _Telling(notices, tell, self.fence.store.bell.ring)
        return settled

    def _take_in(self, telling: _Telling) -> int:
        told = telling.take()
        for notice, problem in told:
            if isinstance(problem, Exception):
                raise problem
            self._settle(notice, problem)
        return len(told)

    def _claim(self, place: str, limit: int) -> list[dict[str, Any]]:
        store = self.fence.store
        with store.read() as connection:
            if not outbox.is_due(connection, place, store.clock.now()):
                return []
        with self.fence.write() as connection:
            claimed = outbox.claim(connection, place, store.clock.now(), self.CLAIM, limit)
            return [notice_of(connection, claim, store.clock.now()) for claim in claimed]

    def _settle(self, notice: Mapping[str, Any], problem: str) -> None:
        self.probe("outbox:told")
        with self.fence.write() as connection:
            outbox.settle(connection, notice["id"], not problem, self.fence.store.clock.now(), problem)
        self.probe("outbox:settled")

    def _tell(self, notifier: Notifier, notice: Mapping[str, Any]) -> str:
        try:
            if not notifier.told(notice):
                self.fence.must_hold()  # no transaction fences what is told; a late owner must not say it again
                notifier.tell(notice)
        except LeaseLost:
            raise
        except (OSError, AinfinityError, subprocess.SubprocessError) as error:
            return self._problem(notice, error)
        return ""

    def _tell_aside(self, notifier: Notifier, notice: Mapping[str, Any]) -> str:
        """Tell on a thread, which may not renew the lease; the tick looks at what it came to."""
        try:
            self.fence.must_still_hold()
            notifier.tell(notice)
        except LeaseLost:
            raise
        except (OSError, AinfinityError, subprocess.SubprocessError) as error:
            return self._problem(notice, error)
        return ""

    def _problem(self, notice: Mapping[str, Any], error: Exception) -> str:
        _log.warning("notice %s was not told: %s", notice["id"], error)
        return str(error)[:500] or type(error).__name__

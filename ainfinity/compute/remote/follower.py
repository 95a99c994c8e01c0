"""Following the logs of many attempts: a bounded number all the time, the others in turn."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ainfinity.compute.remote.following import Following, LogStreams
from ainfinity.compute.remote.rows import LogEnd, LogSource

_log = logging.getLogger(__name__)

#: Streams open at once. Each takes a connection and a thread here, and a process on the API server.
MOST: Final = 32
#: Seconds between two writings of what has come, and between two readings of the same log that is not followed.
_BEAT: Final = 0.2
_TURN: Final = 15.0
#: Seconds before a stream that broke off is opened again, at first and at most.
_FIRST_PAUSE: Final = 0.5
_LAST_PAUSE: Final = 15.0


class Followers:
    """The `LogFollower` of `SkyPilotCompute`. Logs lie in `<folder>/<attempt>/log.txt`."""

    def __init__(self, streams: LogStreams, folder: Path, *, most: int = MOST, turn: float = _TURN) -> None:
        self._streams = streams
        self._folder = folder
        self._most = most
        self._turn = turn
        self._lock = threading.Lock()
        self._known: dict[str, Following] = {}
        #: Those that have a thread of their own, and the others in the order of their turns.
        self._followed: set[str] = set()
        self._waiting: deque[str] = deque()
        self._closed = threading.Event()
        self._started = False

    def follow(self, name: str, source: LogSource) -> None:
        """Begin to follow, or go on with what is known now; repeated calls cost nothing."""
        with self._lock:
            if self._closed.is_set():
                return
            one = self._known.get(name)
            if one is None:
                one = self._known[name] = Following(self._folder / name, self._streams)
                try:
                    one.recall()
                except OSError as error:
                    _log.warning("what is known of the log of %s cannot be read: %s", name, error)
                self._waiting.append(name)
            one.source = source
            if not self._started:
                self._started = True
                self._start("ainfinity-logs-write", self._beat)
                self._start("ainfinity-logs-sample", self._sample)
        self._give_places()

    def ended(self, name: str) -> LogEnd | None:
        """Return how the log ended once all of it is in the file; None before that.

        Where the log can no longer be had, for its machine is gone, it ended without a status.
        """
        one = self._known.get(name)
        if one is None:
            return None
        return one.end or (LogEnd() if one.is_gone else None)

    def drop(self, name: str) -> None:
        """Stop following; what is in the file stays."""
        with self._lock:
            one = self._known.pop(name, None)
        if one is not None:
            one.stop()

    def close(self) -> None:
        """End all threads; those that wait for a network end with that."""
        with self._lock:
            self._closed.set()
            known, self._known = list(self._known.values()), {}
        for one in known:
            one.stop()

    def _start(self, name: str, run: Callable[[], None]) -> None:
        threading.Thread(target=run, name=name, daemon=True).start()

    def _give_places(self) -> None:
        """Give free threads to those that wait, the longest wait first."""
        with self._lock:
            while self._waiting and len(self._followed) < self._most and not self._closed.is_set():
                self._follow(self._waiting.popleft())

    def _follow(self, name: str) -> None:
        one = self._known.get(name)
        if one is not None and one.end is None:
            self._followed.add(name)
            self._start(f"ainfinity-logs-{name}", lambda: self._run(one))

    def _run(self, one: Following) -> None:
        pause = _FIRST_PAUSE
        try:
            while not one.stopped.is_set() and one.end is None:
                before = one.source
                came = self._try_read(one, follow=True)
                pause = _FIRST_PAUSE if came else min(pause * 2, _LAST_PAUSE)
                # A source that became known meanwhile is looked at soon.
                give_up = time.monotonic() + pause
                while time.monotonic() < give_up and one.source == before and one.end is None:
                    if one.stopped.wait(_BEAT):
                        break
        finally:
            with self._lock:
                self._followed.discard(one.name)
            self._give_places()

    def _sample(self) -> None:
        """Read in turn those that have no thread, each at most once a turn."""
        read_at: dict[str, float] = {}
        while not self._closed.wait(_BEAT):
            with self._lock:
                name = self._waiting.popleft() if self._waiting else ""
                one = self._known.get(name)
                if one is None or one.end is not None:
                    read_at.pop(name, None)
                    continue
            if time.monotonic() - read_at.get(name, -self._turn) >= self._turn:
                self._try_read(one, follow=False)
                read_at[name] = time.monotonic()
            with self._lock:
                if one.is_nearly_over:  # not for long, so that it does not matter if it is one more
                    self._follow(name)
                else:
                    self._waiting.append(name)
            self._give_places()

    def _beat(self) -> None:
        while not self._closed.wait(_BEAT):
            with self._lock:
                known = list(self._known.values())
            for one in known:
                try:
                    one.flush()
                except OSError as error:
                    _log.warning("the log of %s cannot be written: %s", one.name, error)

    def _try_read(self, one: Following, *, follow: bool) -> bool:
        try:
            return one.read(follow=follow)
        except OSError as error:
            _log.warning("the log of %s cannot be written: %s", one.name, error)
        except Exception:  # noqa: BLE001, a thread that dies would leave its log unread for ever
            _log.exception("the log of %s cannot be followed now", one.name)
        return False

"""A backend as the reconciler uses it: a local one is called on the tick itself, a remote one on threads.

A call that hangs holds up one thread and nothing else: neither the tick, nor other jobs, nor other backends. What a
call came to is taken in on the tick's own thread, which is the only one that writes.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ainfinity.compute.port import Compute
from ainfinity.core.clock import Clock
from ainfinity.core.exceptions import AinfinityError, ComputeUnreachable
from ainfinity.domain.observation import Observation

_log = logging.getLogger(__name__)

#: A remote backend that has not answered for this long is out of contact. Seconds.
PATIENCE: Final = 60.0
_THREADS: Final = 16


@dataclass(frozen=True, slots=True)
class Look:
    """What a backend says of all attempts. `asked` is when it was asked: an answer is as old as its question."""

    found: Mapping[str, Observation]
    asked: float


#: Takes in what a call came to: the error that it raised, or None.
Done = Callable[[Exception | None], None]


class Backend:
    """One compute and the calls to it. `wake` is called when something is there to be taken in."""

    def __init__(self, compute: Compute, clock: Clock, wake: Callable[[], None] = lambda: None) -> None:
        self.compute = compute
        self._clock = clock
        self._wake = wake
        self._threads = _DaemonThreads(_THREADS)
        #: What calls are under way, as (what, attempt name).
        self._busy: set[tuple[str, str]] = set()
        self._finished: queue.SimpleQueue[tuple[tuple[str, str], Exception | None, Done]] = queue.SimpleQueue()
        self._looking_since: float | None = None
        self._looks: queue.SimpleQueue[Look | Exception] = queue.SimpleQueue()
        self._last_asked = float("-inf")

    def look(self, pause: float) -> Look | None:
        """Return the backend's word, or None while a remote one has not given a new one.

        A remote backend is asked again at the earliest `pause` seconds after it was asked last.

        Errors:
            ComputeUnreachable: it cannot be reached, or has not answered for `PATIENCE`.
        """
        if not self.compute.remote:
            asked = self._clock.now()
            return Look(self.compute.observe_all(), asked)
        answer = self._answer()
        now = self._clock.now()
        if self._looking_since is None and now - self._last_asked >= pause:
            self._looking_since = self._last_asked = now
            self._threads.run(self._observe)
        if isinstance(answer, Look):
            return answer
        if answer is not None:
            raise answer
        if self._looking_since is not None and now - self._looking_since > PATIENCE:
            raise ComputeUnreachable(f"{self.compute.name} has not answered for {now - self._looking_since:.0f} s.")
        return None

    def look_soon(self) -> None:
        """Ask again at the next tick: something was changed."""
        self._last_asked = float("-inf")

    def _answer(self) -> Look | Exception | None:
        try:
            answer = self._looks.get_nowait()
        except queue.Empty:
            return None
        self._looking_since = None
        return answer

    def _observe(self) -> None:
        asked = self._clock.now()
        try:
            self._looks.put(Look(self.compute.observe_all(), asked))
        except ComputeUnreachable as error:
            self._looks.put(error)
        except Exception as error:  # noqa: BLE001
            # A fault of ours must not end the looking for good: the job would be stale for ever, without a word.
            _log.exception("looking at %s failed", self.compute.name)
            self._looks.put(ComputeUnreachable(f"Looking at {self.compute.name} failed: {error!r}."))
        self._wake()

    def is_busy(self, what: str, name: str) -> bool:
        """Whether such a call about the attempt is under way."""
        return (what, name) in self._busy

    def call(self, what: str, name: str, work: Callable[[], Any], done: Done) -> None:
        """Make a call; `done` takes in what it came to, now or on a later `collect`. One under way is not repeated.

        Errors of a local backend that are no `Exception`, as a test's crash, pass through.
        """
        key = (what, name)
        if not self.compute.remote:
            done(_attempt(work))
        elif key not in self._busy:
            self._busy.add(key)
            self._threads.run(lambda: self._work(key, work, done))

    def _work(self, key: tuple[str, str], work: Callable[[], Any], done: Done) -> None:
        error = _attempt(work)
        if error is not None and not isinstance(error, AinfinityError):
            # Whatever a client library fails with tells nothing about what became of the call.
            _log.error("the %s of %s failed", *key, exc_info=error)
            error = ComputeUnreachable(f"The {key[0]} of {key[1]} failed: {error!r}.")
        self._finished.put((key, error, done))
        self._wake()

    def collect(self) -> None:
        """Take in what finished calls came to. Raises what their `done` raises; the rest stays for the next time."""
        while True:
            try:
                key, error, done = self._finished.get_nowait()
            except queue.Empty:
                return
            self._busy.discard(key)
            self.look_soon()
            done(error)


def _attempt(work: Callable[[], Any]) -> Exception | None:
    try:
        work()
    except Exception as error:  # noqa: BLE001  # handed to `done`, which raises what it does not know
        return error
    return None


class _DaemonThreads:
    """A few threads that do not keep the process from ending, as those of `ThreadPoolExecutor` would."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._count = 0

    def run(self, work: Callable[[], None]) -> None:
        self._work.put(work)
        if not self._idle.acquire(blocking=False) and self._count < self._most:
            self._count += 1
            threading.Thread(target=self._loop, name=f"ainfinity-calls-{self._count}", daemon=True).start()

    def _loop(self) -> None:
        while True:
            self._work.get()()
            self._idle.release()

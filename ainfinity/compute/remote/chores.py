"""Questions and calls that nobody waits for, a few at a time and each only once at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ainfinity.core.exceptions import AinfinityError

_log = logging.getLogger(__name__)
_AT_ONCE = 8


class Chores:
    """Runs them on threads that do not keep the process from ending. One that fails is asked for again by its need."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[str] = set()
        self._room = threading.Semaphore(_AT_ONCE)

    def begin(self, key: str, work: Callable[[], None]) -> bool:
        """Begin a piece of work; False where one of that key is under way, or too many are."""
        with self._lock:
            if key in self._running or not self._room.acquire(blocking=False):
                return False
            self._running.add(key)
        threading.Thread(target=self._run, args=(key, work), name=f"ainfinity-{key}", daemon=True).start()
        return True

    def _run(self, key: str, work: Callable[[], None]) -> None:
        try:
            work()
        except AinfinityError as error:
            _log.info("%s: %s", key, error)
        except Exception:  # noqa: BLE001  # a fault of ours in one chore must not go unseen, nor end the others
            _log.exception("%s failed", key)
        finally:
            with self._lock:
                self._running.discard(key)
            self._room.release()

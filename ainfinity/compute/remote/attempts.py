"""The attempts that this process knows of, each with its record on the disk."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field

from ainfinity.compute.port import LaunchRequest
from ainfinity.compute.remote.record import Record, Records
from ainfinity.core.exceptions import FolderUnwritable

_log = logging.getLogger(__name__)
_NEVER = float("-inf")


@dataclass(slots=True)
class Attempt:
    """What this process knows of one attempt besides its record. `lock` is never held over a request."""

    record: Record
    #: Only where this process launched it: it holds the secrets, which are never written.
    request: LaunchRequest | None = None
    #: Whether this process is sending it right now.
    posting: bool = False
    #: Since when its cluster or job is missing or broken, without a break.
    odd_since: float | None = None
    queue_asked: float = _NEVER
    sent_at: float = _NEVER
    #: The record as it was written last.
    written: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def is_unsent(self) -> bool:
        """Whether nothing shows that it ever reached SkyPilot, and nobody here is at it."""
        record = self.record
        known = record.taken or record.seen or record.end is not None or record.stopped_at is not None
        return not known and not self.posting and self.request is None


class Attempts:
    """All attempts that are not released, and those that were found though nothing is remembered of them."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self._lock = threading.Lock()
        self._known = {name: Attempt(record, written=repr(record)) for name, record in records.read_all().items()}
        self._strangers: dict[str, Record] = {}

    def all(self) -> list[Attempt]:
        """Return those known now."""
        with self._lock:
            return list(self._known.values())

    def get(self, name: str) -> Attempt | None:
        """Return a known attempt."""
        return self._known.get(name)

    def get_or_make(self, record: Record) -> Attempt:
        """Return the attempt of that name; where there is none, one with this record."""
        with self._lock:
            return self._known.setdefault(record.name, Attempt(record))

    def meet(self, strangers: list[Record]) -> list[Record]:
        """Remember who was found this time, and return those of them that nothing is remembered of."""
        with self._lock:
            found = [record for record in strangers if record.name not in self._known]
            self._strangers = {record.name: record for record in found}
        return found

    def stranger(self, name: str) -> Record | None:
        """Return what was found under a name that nothing is remembered of."""
        return self._strangers.get(name)

    def take_on(self, name: str) -> Attempt | None:
        """Return a known attempt, or make a stranger one: whoever asks for it by name says that it is ours."""
        attempt = self._known.get(name)
        stranger = self._strangers.get(name)
        return self.get_or_make(stranger) if attempt is None and stranger is not None else attempt

    def forget(self, name: str) -> None:
        """Forget an attempt; its folder stays. Raises OSError."""
        try:
            self.records.release(name)
        finally:
            with self._lock:
                self._known.pop(name, None)

    def must_write(self, attempt: Attempt) -> None:
        """Keep the record before something is launched. Errors: FolderUnwritable."""
        try:
            self.records.write(attempt.record, durably=True)
        except OSError as error:
            raise FolderUnwritable(
                f"{self.records.folder} cannot be written: {error.strerror}.", hint="Make room on its disk."
            ) from error

    def write(self, attempt: Attempt) -> None:
        """Keep the record if it changed. On a full disk it is kept in memory, and found again by name."""
        now = repr(attempt.record)
        if now == attempt.written or attempt.record.name not in self._known:
            return
        try:
            self.records.write(attempt.record)
            attempt.written = now
        except OSError as error:
            _log.warning("the record of %s cannot be written: %s", attempt.record.name, error.strerror)

"""One attempt's log, brought home: what its launch says, then what its job says."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

from ainfinity.compute.remote.journal import Journal, read_end
from ainfinity.compute.remote.logreader import LogReader
from ainfinity.compute.remote.rows import Gone, LineStream, LogEnd, LogSource, RequestLost
from ainfinity.core.exceptions import AinfinityError
from ainfinity.core.redact import redact

_log = logging.getLogger(__name__)

#: What `tail_logs` answers for each end of a job; what is not here failed.
_EXIT_CODES: Final = {"SUCCEEDED": 0, "CANCELLED": 103}
_FAILED: Final = 100
#: Pieces of a stream after which it waits for them to be written.
_MOST_PIECES: Final = 20_000
_PIECES: Final = 4096
#: Seconds between two accounts of what was written, and for which a full disk is left alone.
_SAVE: Final = 1.0
_FULL: Final = 0.5
_LAUNCH: Final = "launch"
_PROVISION: Final = "provision"


class LogStreams(Protocol):
    """Where logs come from. A stream that breaks raises ComputeUnreachable, one that cannot be had raises Gone."""

    def tail(self, cluster: str, job_id: int | None, *, follow: bool = True) -> LineStream:
        """Yield the log of a cluster's job from its beginning, with `follow` to its end, else as far as it is."""
        ...

    def tail_managed(self, job_id: int, *, follow: bool = True) -> LineStream:
        """Yield the log of a managed job on the machine that it has now, and with `follow` on those to come."""
        ...

    def tail_provision(self, cluster: str) -> LineStream:
        """Yield what the making of a cluster has written so far."""
        ...

    def tail_request(self, request_id: str) -> LineStream:
        """Yield what a launch writes, up to its end."""
        ...


class Following:
    """Follows one attempt. `read` is for one thread at a time; `flush` may come from another."""

    def __init__(self, folder: Path, streams: LogStreams, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = folder.name
        self.source: LogSource | None = None
        self.stopped = threading.Event()
        self._folder = folder
        self._streams = streams
        self._clock = clock
        self._lock = threading.RLock()
        self._journal: Journal | None = None
        self._reader: LogReader | None = None
        self._pieces: deque[str] = deque()
        self._saved_at = 0.0
        self._end: LogEnd | None = None
        self._is_unsaved = False
        #: Whether the last reading found that the log can no longer be had.
        self.is_gone = False
        #: Whether the last reading, which did not follow, came to what may be the end of a managed job.
        self.is_nearly_over = False

    def recall(self) -> None:
        """Remember how the log ended, if an earlier worker has seen it. Errors: OSError."""
        self._end = self._end or read_end(self._folder)

    @property
    def end(self) -> LogEnd | None:
        """How the log ended, once all of it is in the file."""
        return self._end

    def read(self, *, follow: bool) -> bool:
        """Read what there is, with `follow` for as long as more comes; False if nothing could be read.

        Errors:
            OSError: the log cannot be written.
        """
        source = self.source
        if source is None or self._end is not None or self.stopped.is_set() or not self._open():
            return False
        try:
            return self._read(source, follow=follow)
        except AinfinityError as error:
            _log.info("the log of %s broke off: %s", self.name, error)
            self.is_gone = isinstance(error, Gone)
            return False
        finally:
            self._close()

    def flush(self) -> bool:
        """Write what has come since the last time; False if the disk is full. Errors: OSError."""
        with self._lock:
            journal, reader = self._journal, self._reader
            if journal is None or reader is None or self.stopped.is_set():
                return True
            if not journal.append(""):
                return False
            # Its other end is filled meanwhile, without the lock.
            pieces = [self._pieces.popleft() for _ in range(len(self._pieces))]
            text = redact(reader.feed(pieces)) if pieces else ""
            return self._write(journal, text)

    def stop(self) -> None:
        """Write nothing from now on, and let another one follow. What is blocked in a stream ends with that."""
        with self._lock:
            self.stopped.set()
            self._close()

    def _open(self) -> bool:
        with self._lock:
            if self.stopped.is_set() or self._journal is not None:
                return False
            self._journal = Journal.open(self._folder)
            if self._journal is None:
                return False
            if self._journal.end is not None:
                self._end = self._journal.end
                self._close()
                return False
            return True

    def _close(self) -> None:
        with self._lock:
            journal, self._journal, self._reader = self._journal, None, None
            if journal is not None:
                journal.save()
                journal.close()

    def _read(self, source: LogSource, *, follow: bool) -> bool:
        # A launch is followed to its end; whoever must not wait reads it when there is a job.
        if source.request_id and (follow or source.job_id is not None):
            self._read_launch(_LAUNCH, self._streams.tail_request(source.request_id), over=True)
        elif source.cluster and not source.request_id and not self._is_launch_known():
            # Without its request it is known from the cluster's own record, which has all details.
            lines = self._streams.tail_provision(source.cluster)
            told = (line for line in lines if not line.startswith("D "))
            self._read_launch(_PROVISION, told, over=source.job_id is not None)
        if source.job_id is None:
            return False
        if source.mode == "managed":
            key, stream = f"managed:{source.job_id}", self._streams.tail_managed(source.job_id, follow=follow)
        else:
            key = f"job:{source.cluster}:{source.job_id}"
            stream = self._streams.tail(source.cluster, source.job_id, follow=follow)
        if not self._pump(key, stream, framed=True):
            return False
        self.is_gone = False
        status = self._reader.end if self._reader is not None else ""
        # A managed job whose run ended may run again; only who follows it is told that it is over.
        self.is_nearly_over = bool(status) and source.mode == "managed" and not follow
        return self._note_end(status) if status and not self.is_nearly_over else True

    def _is_launch_known(self) -> bool:
        places = self._journal.places if self._journal is not None else {}
        launch, provision = places.get(_LAUNCH), places.get(_PROVISION)
        return bool((launch and launch.lines) or (provision and provision.done))

    def _read_launch(self, key: str, stream: Iterator[str], *, over: bool) -> None:
        journal = self._journal
        if journal is None or journal.place(key).done:
            return
        try:
            if not self._pump(key, stream, framed=False):
                return
        except (Gone, RequestLost):
            pass  # it goes on without us; the job's own log tells what came of it
        journal.place(key).done = over

    def _note_end(self, status: str) -> bool:
        end = LogEnd(status, _EXIT_CODES.get(status, _FAILED))
        while not self.stopped.is_set():
            with self._lock:
                if self._journal is None:
                    return False
                if self._journal.save(end):
                    self._end = end
                    return True
            self.stopped.wait(_FULL)
        return False

    def _pump(self, key: str, stream: Iterator[str], *, framed: bool) -> bool:
        """Take a stream in up to its end; False if it must be opened once more, or nobody is to follow any more."""
        with self._lock:
            journal = self._journal
            if journal is None:
                return False
            reader = self._reader = LogReader(journal.place(key), framed=framed)
            self._pieces.clear()
        pieces = self._pieces
        try:
            for piece in stream:
                pieces.append(piece)
                if len(pieces) >= _PIECES and not self._make_room():
                    return False
                if reader.must_read_again or self.stopped.is_set():
                    return False
        finally:
            close = getattr(stream, "close", None)
            if close is not None:
                close()
            drained = self._drain()
        if drained and not framed:
            with self._lock:
                self._write(journal, redact(reader.finish()))
        return drained and not reader.must_read_again

    def _make_room(self) -> bool:
        """Have the pieces written; on a full disk wait only when there are too many. False when nobody is to follow."""
        while not self.flush() and len(self._pieces) >= _MOST_PIECES:
            if self.stopped.wait(_FULL):
                return False
        return not self.stopped.is_set()

    def _drain(self) -> bool:
        """Have everything written and accounted for, however long the disk stays full."""
        while not self.stopped.is_set():
            with self._lock:
                if self._journal is None:
                    return False
                if self.flush() and self._journal.save():
                    return True
            self.stopped.wait(_FULL)
        return False

    def _write(self, journal: Journal, text: str) -> bool:
        written = journal.append(text)
        self._is_unsaved = self._is_unsaved or bool(text)
        now = self._clock()
        if written and self._is_unsaved and now - self._saved_at >= _SAVE:
            self._saved_at = now
            self._is_unsaved = not journal.save()
        return written

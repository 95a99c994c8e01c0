"""Runs one attempt on this machine and says how it ended: `python -m ainfinity.compute.supervisor FOLDER`.

It outlives the worker that started it and any front. It keeps the deadline when nobody else is alive, ends every
process of the attempt before it writes the exit record, and needs the standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ainfinity.compute.folder import EXIT_TERMINATED, AttemptFolder, read_deadline, read_record
from ainfinity.compute.processes import Ending, list_processes, members_of
from ainfinity.compute.redactor import SECRET_NAMES

#: A machine that slept does not count the time in `select`, so look at the clock at least this often (seconds).
_LOOK_AT_CLOCK = 15.0
#: How often processes that are being ended are looked for: from the first to the last of these (seconds).
_FIRST_POLL, _LAST_POLL = 0.02, 0.5
#: How long the end of the log may take once nobody writes to it any more (seconds).
_DRAIN = 10.0
#: How long to try again to write the exit record, once a second, before giving up.
_EXIT_TRIES = 60
_EXIT_NOT_STARTED = 127
_PR_SET_CHILD_SUBREAPER = 36


class Supervisor:
    """One attempt's supervisor. Signals are caught before the claim, so that none is lost after it."""

    def __init__(self, folder: AttemptFolder, request: Mapping[str, Any]) -> None:
        self._folder = folder
        self._mark = folder.mark
        self._command = [str(word) for word in request["command"]]
        self._python_path = str(request["python_path"])
        self._grace = float(request["grace"])
        self._launched_until: float | None = request.get("deadline")
        self._deadline = self._launched_until
        self._asked_to_end = False
        self._child = self._redactor = 0
        self._code: int | None = None
        self._wake, wake = os.pipe()
        for end in (self._wake, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_terminate)
        # Handlers and not SIG_IGN, which the trainer would inherit. A log-out must not end the attempt; SIGHUP only
        # wakes this process, for a deadline that was changed.
        for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, _ignore)

    def run(self) -> int:
        """Run the attempt if nobody else did, and return this process's exit code."""
        if not self._folder.claim_for_me():
            return 0
        if self._folder.stop.exists() or self._asked_to_end:
            return self._record(EXIT_TERMINATED, self._reason_to_end())
        _adopt_orphans()
        try:
            reason = self._run_child()
        except BaseException as error:
            self._end_all()
            self._record(self._code, f"the supervisor failed: {error!r}")
            raise
        return self._record(self._code, reason)

    def _run_child(self) -> str:
        try:
            self._start()
        except OSError as error:
            self._code = _EXIT_NOT_STARTED
            return f"cannot start {self._command[0]}: {error.strerror}"
        while self._code is None and not self._asked_to_end and not self._is_late():
            self._wait(self._time_to_look())
            self._reap()
        ended_by_itself = self._code is not None
        late = self._is_late()
        self._end_all()
        if self._asked_to_end and not ended_by_itself:
            return self._reason_to_end()
        return "deadline" if late else ""

    def _reason_to_end(self) -> str:
        """Tell our own order from someone else's signal, such as a shutdown's."""
        return "stopped" if self._folder.stop.exists() else "terminated"

    def _start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": self._python_path}
        # It inherits the log as its output and writes there itself, so that nothing is lost when this process dies.
        output = self._start_redactor() if os.environ.get(SECRET_NAMES) else None
        try:
            child = subprocess.Popen(
                self._command,
                cwd=self._folder.path,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        finally:
            if output is not None:
                os.close(output)
        self._child = child.pid
        child.returncode = 0  # Reaped by `_reap` with everyone else's orphans; Popen must not wait for it.

    def _start_redactor(self) -> int:
        """Start what hides secrets on their way into the log, and return the file descriptor to write to."""
        source, output = os.pipe()
        try:
            redactor = subprocess.Popen(
                [sys.executable, "-P", "-m", "ainfinity.compute.redactor"], stdin=source, start_new_session=True
            )
        except OSError:
            os.close(output)
            raise
        finally:
            os.close(source)
        self._redactor = redactor.pid
        redactor.returncode = 0  # Reaped by `_reap`.
        return output

    def _end_all(self) -> None:
        """End what is left of the attempt and return when nothing is, however long that takes.

        The redactor comes last: it ends by itself after the last writer, and what it holds is the end of the log.
        """
        ending, draining = Ending(time.monotonic(), self._grace), None
        pause = _FIRST_POLL
        while True:
            childless = self._reap()
            alive = members_of(self._mark, list_processes(), root=os.getpid())
            if childless and not alive:
                return
            writers = [process for process in alive if process.identity.pid != self._redactor]
            if writers:
                ending.step(writers, time.monotonic())
            else:
                draining = draining or Ending(time.monotonic(), _DRAIN)
                draining.step(alive, time.monotonic())
            self._wait(pause)
            pause = min(pause * 1.5, _LAST_POLL)

    def _reap(self) -> bool:
        """Collect children that ended; return whether none is left.

        As this process adopts orphans (on Linux), no child left means no descendant left.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self._child:
                code = os.waitstatus_to_exitcode(status)
                self._code = code if code >= 0 else 128 - code

    def _wait(self, timeout: float) -> None:
        """Wait for a signal."""
        readable, _, _ = select.select([self._wake], [], [], timeout)
        if readable:
            os.read(self._wake, 4096)

    def _is_late(self) -> bool:
        deadline = self._current_deadline()
        return deadline is not None and time.time() >= deadline

    def _current_deadline(self) -> float | None:
        # A file that cannot be read takes no deadline away, and gives none.
        with contextlib.suppress(OSError):
            self._deadline = read_deadline(self._folder.deadline, self._launched_until)
        return self._deadline

    def _time_to_look(self) -> float:
        deadline = self._current_deadline()
        if deadline is None:
            return _LOOK_AT_CLOCK
        return min(max(deadline - time.time(), 0.0), _LOOK_AT_CLOCK)

    def _on_terminate(self, *_: object) -> None:
        self._asked_to_end = True

    def _record(self, code: int | None, reason: str) -> int:
        for tries_left in reversed(range(_EXIT_TRIES)):
            try:
                self._folder.write_exit(code, reason)
                return 0
            except OSError as error:
                if not tries_left or isinstance(error, FileNotFoundError):  # the folder itself is gone
                    raise
                time.sleep(1)
        return 1


def _ignore(*_: object) -> None:
    pass


def _adopt_orphans() -> None:
    """Make orphaned descendants children of this process and not of init, where the system can (Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def main() -> int:
    """Supervise the attempt in the folder that is the one argument."""
    folder = AttemptFolder(Path(sys.argv[1]))
    request = read_record(folder.request)
    if request is None:
        raise SystemExit(f"no request in {folder.path}")
    try:
        return Supervisor(folder, request).run()
    except OSError as error:
        raise SystemExit(f"the supervisor of {folder.path.name} cannot work: {error.strerror or error}") from None


if __name__ == "__main__":
    raise SystemExit(main())

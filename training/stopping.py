"""When a run is asked to end: SIGTERM (a cancel, a preemption), Ctrl-C, or its deadline."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final, Literal, NoReturn

from training.errors import EXIT_STOPPED
from training.files import write_durably

Reason = Literal["sigterm", "deadline"]
_LOOK_SECONDS: Final = 5.0  # a look costs a request where the file lies in a bucket
_NONE: Final = "none"
_ECHO_SECONDS: Final = 3.0
_KILLED: Final = 128 + signal.SIGTERM


class StopRequest:
    """Notes requests to stop. While steps are taken they wait for the end of the step; at other times they act at once.

    torchrun passes a SIGTERM on to processes that whoever sent it may have reached too, so another one within three
    seconds is taken for an echo of the first. A later one ends the process at once.
    """

    def __init__(self, deadline: float | None = None, clock: Callable[[], float] = time.time) -> None:
        self.deadline = deadline
        #: Holds another deadline once `ainfinity extend` gave one, in Unix seconds, or the word `none`.
        self.file: Path | None = None
        #: Whether this rank's deadline counts: rank 0's does, since an extension may reach no other machine than its.
        self.decides = True
        self._clock = clock
        self._looked_at = -math.inf
        self._asked_at: float | None = None
        self._in_steps = False
        self._at_once: Callable[[], None] = lambda: None

    def install(self) -> None:
        """Take over SIGTERM and SIGINT of this process."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def act_at_once(self, tell: Callable[[], None]) -> None:
        """From here on a signal calls `tell` and ends the process."""
        self._at_once = tell
        self._in_steps = False
        if self._asked_at is not None:
            self._exit_now()

    def wait_for_step(self) -> None:
        """From here on a signal is only noted; the loop asks for it with `reason`."""
        self._in_steps = True

    def reason(self) -> Reason | None:
        """Why this rank was asked to stop, if it was."""
        if self._asked_at is not None:
            return "sigterm"
        limit = self.limit() if self.decides else None
        return "deadline" if limit is not None and self._clock() >= limit else None

    def limit(self) -> float | None:
        """The deadline as it stands, in Unix seconds; None without one."""
        now = self._clock()
        if self.file is not None and now - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = now
            self.deadline = _read(self.file, self.deadline)
        return self.deadline

    def follow(self, limit: float | None) -> None:
        """Write rank 0's deadline down for whoever guards this machine, if it is news here."""
        if limit == self.limit():
            return
        before, self.deadline = self.deadline, limit
        if self.file is not None and _read(self.file, before) != limit:
            try:
                write_durably(self.file, f"{_NONE if limit is None else limit}\n")
            except OSError as error:  # the guard then ends this rank at the earlier deadline: a pity, and no fault
                sys.stderr.write(f"the new deadline cannot be written to {self.file}: {error.strerror}\n")

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        now = self._clock()
        if not self._in_steps:
            self._asked_at = now
            self._exit_now()
        if self._asked_at is None:
            self._asked_at = now
        elif now - self._asked_at > _ECHO_SECONDS:
            os._exit(_KILLED)

    def _exit_now(self) -> NoReturn:
        self._at_once()
        sys.stderr.flush()
        os._exit(EXIT_STOPPED)  # not sys.exit: the interrupted code may be anywhere, also inside a collective


def _read(file: Path, known: float | None) -> float | None:
    """The deadline in the file; the known one if there is none, or none that can be read."""
    try:
        text = file.read_text(encoding="ascii").strip()
        return None if text == _NONE else float(text)
    except (OSError, ValueError):
        return known

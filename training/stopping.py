"""When a run is asked to end: SIGTERM (a cancel, a preemption), Ctrl-C, or its deadline."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Final, Literal, NoReturn

from training.errors import EXIT_STOPPED

Reason = Literal["sigterm", "deadline"]
_ECHO_SECONDS: Final = 3.0
_KILLED: Final = 128 + signal.SIGTERM


class StopRequest:
    """Notes requests to stop. While steps are taken they wait for the end of the step; at other times they act at once.

    torchrun passes a SIGTERM on to processes that whoever sent it may have reached too, so another one within three
    seconds is taken for an echo of the first. A later one ends the process at once.
    """

    def __init__(self, deadline: float | None = None, clock: Callable[[], float] = time.time) -> None:
        self.deadline = deadline
        self._clock = clock
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
        if self.deadline is not None and self._clock() >= self.deadline:
            return "deadline"
        return None

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

"""A gateway that streams logs as the real one does: from the start each time, whole or broken off, slow or at once."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from ainfinity.compute.remote.rows import Gone
from ainfinity.core.exceptions import ComputeUnreachable

BEGIN = "\x1b[2m├── \x1b[0m\x1b[2mWaiting for task resources on 1 node.\x1b[0m\n"
STARTED = "\x1b[2m└── \x1b[0mJob started. Streaming logs... \x1b[2m(Ctrl-C to exit)\x1b[0m\n"
LOST = "\x1b[33mThe job cluster is preempted or failed.\x1b[0m\n"


def ended(status: str) -> str:
    return f"\x1b[0m\x1b[32m✓ Job finished (status: {status}).\x1b[0m\x1b[0m\n"


def own(text: str, who: str = "task, pid=7") -> str:
    return f"\x1b[36m({who})\x1b[0m {text}\n"


@dataclass
class Machine:
    """What a job has written on its machine so far, and how it ended."""

    lines: list[str] = field(default_factory=list)
    status: str = ""


class Streams:
    """Serves the logs of one cluster and of one managed job, whose machine may be replaced."""

    def __init__(self, chance: random.Random | None = None) -> None:
        self.machine = Machine()
        self.launch: list[str] = []
        self.provision: list[str] = []
        self.chance = chance
        #: How often a stream breaks off, in a piece.
        self.breaks = 0.0
        self.gone = False
        self.changed = threading.Condition()
        self.opened = 0
        self.open_now = 0
        self.most_open = 0
        self.closed = False

    def write(self, *texts: str, who: str = "task, pid=7") -> None:
        with self.changed:
            self.machine.lines += [own(text, who) for text in texts]
            self.changed.notify_all()

    def finish(self, status: str = "SUCCEEDED") -> None:
        with self.changed:
            self.machine.status = status
            self.changed.notify_all()

    def recover(self) -> None:
        """Give the job another machine with an empty log."""
        with self.changed:
            self.machine = Machine()
            self.changed.notify_all()

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def tail(self, cluster: str, job_id: int | None, *, follow: bool = True) -> Iterator[str]:
        if self.gone:
            raise Gone("SkyPilot has no such log.")
        return self._broken(self._tail(follow=follow))

    def tail_managed(self, job_id: int, *, follow: bool = True) -> Iterator[str]:
        return self._broken(self._tail(follow=follow))

    def tail_provision(self, cluster: str) -> Iterator[str]:
        return iter(list(self.provision))

    def tail_request(self, request_id: str) -> Iterator[str]:
        return self._broken(iter(list(self.launch)))

    def _tail(self, *, follow: bool) -> Iterator[str]:
        self.opened += 1
        machine, at = self.machine, 0
        yield "INFO: Waiting 1s for the logs to be written...\n"
        yield BEGIN
        yield STARTED
        while True:
            with self.changed:
                while follow and not (self.closed or at < len(machine.lines) or machine.status):
                    if machine is not self.machine:
                        break
                    self.changed.wait(1)
                if self.closed:
                    return
                new, status = machine.lines[at:], machine.status
            at += len(new)
            yield from new
            if machine is not self.machine:
                yield LOST
                yield BEGIN
                yield STARTED
                machine, at = self.machine, 0
            elif status and at == len(machine.lines):
                yield ended(status)
                return
            elif not follow:
                return

    def _broken(self, pieces: Iterator[str]) -> Iterator[str]:
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            for piece in pieces:
                if self.chance is not None and self.chance.random() < self.breaks:
                    yield piece[: self.chance.randrange(len(piece))]  # in the middle of a line
                    if self.chance.random() < 0.5:
                        raise ComputeUnreachable("The connection broke.")
                    return
                yield piece
        finally:
            self.open_now -= 1

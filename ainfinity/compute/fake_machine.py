"""One machine of the fake backend: the weather that its life is drawn from, what is seen of it, and what it writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ainfinity.domain.observation import Observation, Phase

#: How many step lines a machine writes over its life.
STEPS = 4


@dataclass(frozen=True, slots=True)
class Weather:
    """What goes wrong by chance. Rates are probabilities, pairs are the bounds of a duration in seconds."""

    # Of a call.
    timeout: float = 0.0
    launch_lost: float = 0.0
    launch_reply_lost: float = 0.0
    launch_refused: float = 0.0
    stop_lost: float = 0.0
    stop_reply_lost: float = 0.0
    #: A snapshot is older than the one before; one attempt is missing from it.
    stale: float = 0.0
    missing: float = 0.0
    export_bad: float = 0.0
    short_read: float = 0.0
    # Of a machine.
    late: float = 0.0
    fail: float = 0.0
    preempted: float = 0.0
    vanish: float = 0.0
    unlisted: float = 0.0
    recover: float = 0.0
    linger: float = 0.0
    stubborn: float = 0.0
    forgotten: float = 0.0
    #: Its trainer falls silent and goes on for ever; it does not keep its deadline; what it made is out of reach.
    silent: float = 0.0
    deaf: float = 0.0
    away: float = 0.0
    #: Its price is never told.
    unpriced: float = 0.0
    #: Dollars an hour; 0 is never told. How long it waits for its machine, and how long what it made is out of reach.
    price: tuple[float, float] = (0.0, 0.0)
    pending: tuple[float, float] = (0.0, 0.0)
    away_for: tuple[float, float] = (1e9, 1e9)
    setup: tuple[float, float] = (1.0, 1.0)
    run: tuple[float, float] = (5.0, 5.0)
    stop: tuple[float, float] = (0.0, 0.0)


@dataclass(slots=True)
class Machine:
    """One effect of one launch. Times are Unix seconds."""

    name: str
    copy: int
    slots: int
    #: When it begins to run and cost, when the list first shows it, when the trainer runs, when that ends by itself.
    begins: float
    listed: float
    runs: float
    ends: float
    #: How it ends by itself: finished, failed, preempted, vanished, unlisted (gone from the list too), deadline, or
    #: silent (not for ages).
    end: str = "finished"
    recovery: tuple[float, float] | None = None
    #: Whether it costs on after its end until it is stopped, and whether the list forgets it once it was stopped.
    lingers: bool = False
    forgotten: float | None = None
    #: How many more stop calls it takes, how long the last one takes, and when that will have ended it.
    stops_left: int = 1
    stop_seconds: float = 0.0
    stopped: float | None = None
    resume_step: int | None = None
    #: How and when it would end by itself if it had no deadline, and whether it keeps one.
    fate: tuple[str, float] = ("finished", 0.0)
    deaf: bool = False
    #: When its machine was there and began to cost, at what price, and after a recovery at another one.
    given_at: float = 0.0
    price: float | None = None
    next_price: float | None = None
    #: When what it made can be reached, if it is still there.
    fetched_at: float = 0.0

    @property
    def over(self) -> float:
        """When its process is no longer there, for whatever reason."""
        return self.ends if self.stopped is None else min(self.ends, self.stopped)

    def alive(self, at: float) -> bool:
        """Whether it runs or costs anything at that time."""
        if at < self.begins or (self.stopped is not None and at >= self.stopped):
            return False
        return at < self.ends or self.lingers

    def observe(self, at: float) -> Observation | None:
        """What a list of that time says of it; None where it is not on it."""
        gone = self.end == "unlisted" and at >= self.ends
        forgotten = self.stopped is not None and self.forgotten is not None and at >= self.stopped + self.forgotten
        if at < self.listed or gone or forgotten:
            return None
        phase, code, reason = self._phase(at)
        moved = self.recovery is not None and at >= self.recovery[1]
        return Observation(
            self.name,
            phase,
            self.alive(at),
            handle=f"{self.name}/{self.copy}",
            exit_code=code,
            reason=reason,
            price_per_hour=self.next_price if moved else self.price,
            given="" if phase == Phase.PENDING else f"machine {'B' if moved else 'A'}",
            recoveries=int(moved),
        )

    def paid(self, at: float) -> list[tuple[float, float | None]]:
        """What it truly cost until then: seconds at a price, None where that was never told."""
        until = at
        if self.stopped is not None:
            until = min(until, self.stopped)
        elif not self.lingers:
            until = min(until, self.ends)
        middle = until if self.recovery is None else min(until, max(self.recovery[1], self.given_at))
        first, second = max(0.0, middle - self.given_at), max(0.0, until - max(middle, self.given_at))
        return [(first, self.price), (second, self.next_price)]

    def _phase(self, at: float) -> tuple[Phase, int | None, str]:
        if at >= self.over:
            if self.stopped is not None and self.stopped < self.ends:
                return Phase.EXITED, 76, "stopped"
            return _ENDS[self.end]
        if self.recovery and self.recovery[0] <= at < self.recovery[1]:
            return Phase.RECOVERING, None, "preempted"
        if at < self.given_at:
            return Phase.PENDING, None, ""
        return (Phase.RUNNING if at >= self.runs else Phase.SETTING_UP), None, ""


_ENDS: dict[str, tuple[Phase, int | None, str]] = {
    "finished": (Phase.EXITED, 0, ""),
    "failed": (Phase.EXITED, 1, ""),
    "preempted": (Phase.EXITED, None, "terminated"),
    "vanished": (Phase.VANISHED, None, "the machine vanished"),
    "unlisted": (Phase.VANISHED, None, ""),
    "deadline": (Phase.EXITED, 76, "deadline"),
    "silent": (Phase.EXITED, 1, ""),
}


def with_deadline(fate: tuple[str, float], deadline: float | None, earliest: float) -> tuple[str, float]:
    """Return how and when a machine ends that keeps a deadline."""
    return fate if deadline is None or deadline >= fate[1] else ("deadline", max(earliest, deadline))


def log(machine: Machine, at: float) -> list[bytes]:
    """Return what the trainer on a machine has written by then: protocol lines, plain text and repeated lines."""
    written: list[bytes] = []
    # Its steps come as they would without a deadline: one that is moved does not change what was written before.
    until, seconds = min(at, machine.over), (machine.fate[1] or machine.ends) - machine.runs
    seq = 0

    def write(kind: str, moment: float, **data: Any) -> None:
        nonlocal seq
        seq += 1
        line = json.dumps({"ainfinity": 1, "seq": seq, "kind": kind, "at": moment} | data)
        written.append(f"{line}\n".encode())

    if until < machine.runs:
        return []
    first = machine.resume_step or 0
    written.append(b"Loading weights\n")
    write("started", machine.runs, resumed_from=machine.resume_step, total_steps=first + STEPS)
    for step in range(1, STEPS + 1):
        moment = machine.runs + seconds * step / (STEPS + 1)
        if moment > until:
            break
        if machine.recovery and moment >= machine.recovery[1] and seq < 1 << 32:
            # After a recovery the trainer starts again, and what was on its way is written twice.
            written.append(written[-1])
            seq = 1 << 32
            write("started", machine.recovery[1], resumed_from=first + step - 1, total_steps=first + STEPS)
        write("step", moment, step=first + step, loss=5.0 / (first + step), lr=1e-4)
        if step % 2 == 0:
            write("checkpoint", moment, step=first + step, path=f"step-{first + step}")
    if at < machine.over:
        return written
    if machine.over < machine.ends:
        write("stopped", machine.over, reason="sigterm", step=first)
    elif machine.end == "deadline":
        write("stopped", machine.ends, reason="deadline", step=first)
    elif machine.end == "finished":
        write("finished", machine.ends, step=first + STEPS, files=[{"path": "adapter", "size": 1, "sha256": ""}])
    elif machine.end == "failed":
        write("failed", machine.ends, code="oom", message="out of memory", hint="Use a smaller batch.")
    return written

"""Attempts on this machine, each under a supervisor of its own that outlives whoever started it.

Everything is known from the attempts' folders and from the processes: a new `LocalCompute` takes over what an earlier
one started, in another process or before a crash, by looking.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ainfinity.compute.folder import AttemptFolder, create_once, read_record, write_deadline, write_record
from ainfinity.compute.launcher import Command, Launcher
from ainfinity.compute.logfile import read_lines
from ainfinity.compute.machine import TRAINER_MODULES
from ainfinity.compute.observing import Look, Observer
from ainfinity.compute.outputs import find_fault
from ainfinity.compute.port import LaunchRequest, Lines
from ainfinity.compute.processes import Ending, Identity, list_processes, members_of, send
from ainfinity.compute.trainer import torchrun_command
from ainfinity.core.clock import Clock, SystemClock
from ainfinity.core.config import Settings
from ainfinity.core.exceptions import ComputeUnreachable, Refused, WrongState
from ainfinity.domain.observation import Observation

#: A supervisor that has not ended its attempt this long after the grace is ended itself. Seconds.
_SUPERVISOR_MARGIN = 5.0


class LocalCompute:
    """The compute backend `local`.

    `command` makes the attempt's command line, `modules` are what its interpreter must be able to import, and
    `devices` the GPUs to hand out; tests replace them.
    """

    name = "local"
    lag = 0.0
    remote = False

    def __init__(
        self,
        settings: Settings,
        clock: Clock | None = None,
        command: Command = torchrun_command,
        modules: Sequence[str] = TRAINER_MODULES,
        devices: Sequence[str] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._observer = Observer(settings.attempts_dir, self._clock)
        self._launcher = Launcher(settings, self._clock, self._observer, command, modules, devices)
        #: Orders to stop as last given. They are also written down, except on a full disk.
        self._orders: dict[str, dict[str, Any]] = {}

    def capacity(self) -> int:
        """Return the number of slots: the setting, else one a GPU, else one."""
        return self._launcher.capacity()

    def observe_all(self) -> Mapping[str, Observation]:
        """Return what is known of every attempt that is not released.

        Errors:
            ComputeUnreachable: the attempts' folder cannot be read.
        """
        self._launcher.reap()
        look = Look()
        with self._reading():
            seen = [self._observer.observe(name, look) for name in self._observer.names()]
        return {one.name: one for one in seen if one is not None}

    def launch(self, request: LaunchRequest) -> str:
        """Start the attempt, or find it started, and return its folder.

        Errors:
            FolderUnwritable: a folder cannot be written or its disk is full; nothing was started.
            MissingTool: the interpreter lacks the trainer's packages.
            Refused: this machine will never run it.
            ComputeUnreachable: it could not be started now.
        """
        output, checkpoints = Path(request.output_dir).absolute(), Path(request.checkpoint_dir).absolute()
        request = replace(request, output_dir=str(output), checkpoint_dir=str(checkpoints))
        return str(self._launcher.launch(request).path)

    def stop(self, name: str) -> None:
        """Begin, or go on with, ending everything of the attempt; one that has not begun never will.

        Errors:
            ComputeUnreachable: it runs on another machine that shares the folder, or has not begun and that it must
                not cannot be written down.
        """
        folder = self._observer.folder(name)
        with self._reading():
            if folder.exit.exists():
                return
            order = self._order_to_stop(folder, name)
            if not folder.claim.exists() and self._prevent(folder, name):
                return
            owner = folder.owner()
        if owner is None:
            return
        if owner.is_elsewhere:
            raise ComputeUnreachable(f"{name} runs on {owner.host}.", hint="Stop it there.")
        elapsed = self._clock.now() - float(order["at"])
        if not owner.is_alive:
            self._end_orphans(folder, name, order)
        elif elapsed < self._settings.stop_grace + _SUPERVISOR_MARGIN:
            send(owner.identity, signal.SIGTERM)
        else:
            left = members_of(folder.mark, list_processes(), root=owner.identity.pid)
            for identity in (owner.identity, *(process.identity for process in left)):
                send(identity, signal.SIGKILL)

    def read_lines(self, offsets: Mapping[str, int]) -> Mapping[str, Lines]:
        """Return new complete output lines after each byte offset, at most about a MiB an attempt.

        Errors:
            ComputeUnreachable: a log is there and cannot be read.
        """
        look = Look()
        with self._reading():
            return {
                name: read_lines(
                    self._observer.folder(name).log, offset, lambda name=name: self._observer.is_over(name, look)
                )
                for name, offset in offsets.items()
            }

    def verify(self, name: str, files: Sequence[Mapping[str, Any]]) -> str:
        """Check that each `{path, size, sha256}` lies in the attempt's output folder, and return "" or what is wrong.

        Errors:
            ComputeUnreachable: the attempt's record cannot be read.
        """
        with self._reading():
            request = read_record(self._observer.folder(name).request)
        if not request:
            return f"{name} was never launched on this machine"
        return find_fault(Path(request["output_dir"]), files)

    def extend(self, name: str, deadline: float | None) -> None:
        """Have the attempt end itself at another time, in Unix seconds; None takes its limit away.

        Errors:
            Refused: it was never launched here, or has ended.
            ComputeUnreachable: that cannot be written down.
        """
        folder = self._observer.folder(name)
        with self._reading():
            if not folder.request.exists() or folder.exit.exists():
                raise Refused(f"{name} does not run on this machine.", hint="Only a running attempt can be extended.")
            write_deadline(folder.deadline, deadline)
            owner = folder.owner()
        if owner is not None and not owner.is_elsewhere:
            send(owner.identity, signal.SIGHUP)  # it looks at once

    def release(self, name: str) -> None:
        """Forget an attempt that is over; its folder stays.

        Errors:
            WrongState: something of it still runs.
            ComputeUnreachable: the attempts' folder cannot be read or written.
        """
        with self._reading():
            if not self._observer.is_over(name, Look()):
                raise WrongState(f"{name} still runs on this machine.", hint="Stop it first.")
            (self._observer.index / name).unlink(missing_ok=True)
        self._orders.pop(name, None)

    def _order_to_stop(self, folder: AttemptFolder, name: str) -> dict[str, Any]:
        """Return the order to stop the attempt, giving it now if nobody did before."""
        order = self._orders.get(name) or read_record(folder.stop)
        if not order:
            order = dict[str, Any](at=self._clock.now(), told=[])
            self._keep_order(folder, name, order)
        return order

    def _keep_order(self, folder: AttemptFolder, name: str, order: dict[str, Any]) -> None:
        self._orders[name] = order
        # On a full disk an attempt must be stopped all the same; this process remembers the order.
        with contextlib.suppress(OSError):
            folder.path.mkdir(parents=True, exist_ok=True)
            write_record(folder.stop, order)

    def _prevent(self, folder: AttemptFolder, name: str) -> bool:
        """See to it that an attempt that has not begun never does; False if it began meanwhile."""
        if not folder.abandon("stopped before it began"):
            return False
        # Listed even if it was never requested: that it cannot run any more is worth knowing.
        self._observer.index.mkdir(exist_ok=True)
        create_once(self._observer.index / name, {"at": self._clock.now(), "devices": []})
        return True

    def _end_orphans(self, folder: AttemptFolder, name: str, order: dict[str, Any]) -> None:
        """Go on with ending what a dead supervisor left."""
        told = {Identity(int(pid), str(start)) for pid, start in order.get("told", ())}
        ending = Ending(float(order["at"]), self._settings.stop_grace, set(told))
        ending.step(members_of(folder.mark, list_processes()), self._clock.now())
        if ending.told != told:
            marks = [[identity.pid, identity.start] for identity in ending.told]
            self._keep_order(folder, name, {**order, "told": marks})

    @contextlib.contextmanager
    def _reading(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise ComputeUnreachable(
                f"{self._settings.attempts_dir} cannot be used: {error.strerror or error}.",
                hint="Look after the disk; nothing is believed about its attempts meanwhile.",
            ) from None

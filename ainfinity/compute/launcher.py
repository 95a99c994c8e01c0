"""Starting an attempt on this machine: once, whoever asks how often, and with its secrets in its environment only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ainfinity.compute.folder import AttemptFolder, create_once, read_record, write_record
from ainfinity.compute.machine import check_folder, check_modules, find_devices, unwritable
from ainfinity.compute.observing import Look, Observer, has_complaint
from ainfinity.compute.port import LaunchRequest
from ainfinity.compute.processes import MARK
from ainfinity.compute.trainer import copy_code, interpreter_of, make_environment, supervisor_path, trainer_path
from ainfinity.core.clock import Clock
from ainfinity.core.config import Settings
from ainfinity.core.constants import DEADLINE_FILE_MARK
from ainfinity.core.exceptions import ComputeUnreachable, Refused

#: Makes the command line of an attempt whose recipe is in the given file.
Command = Callable[[LaunchRequest, Path], Sequence[str]]

_LOCK_SECONDS = 5.0


class Launcher:
    """Starts supervisors. `devices` are the GPUs to hand out, None for those that the machine has."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        observer: Observer,
        command: Command,
        modules: Sequence[str],
        devices: Sequence[str] | None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._observer = observer
        self._command = command
        self._modules = modules
        self._given_devices = devices
        #: Interpreters that were found to have the modules; those that have not are asked again.
        self._equipped: set[str] = set()
        self._supervisors: list[subprocess.Popen[bytes]] = []

    @cached_property
    def devices(self) -> tuple[str, ...]:
        """The GPUs, by the names that CUDA_VISIBLE_DEVICES takes."""
        return find_devices(os.environ) if self._given_devices is None else tuple(self._given_devices)

    def capacity(self) -> int:
        """Return the number of slots: the setting, else one a GPU, else one."""
        return self._settings.local_slots or len(self.devices) or 1

    def reap(self) -> None:
        """Collect supervisors that ended: while their parent, this process, lives they would stay as zombies."""
        self._supervisors = [child for child in self._supervisors if child.poll() is None]

    def launch(self, request: LaunchRequest) -> AttemptFolder:
        """Start the attempt's supervisor unless it has one or had one. Raises as `LocalCompute.launch`."""
        folder = self._observer.folder(request.name)
        if not folder.claim.exists():
            self._check(request)
            for path in (folder.path, Path(request.output_dir), Path(request.checkpoint_dir)):
                check_folder(path)
        try:
            self._observer.index.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._launch(folder, request)
        except OSError as error:
            raise unwritable(folder.path, error) from None
        return folder

    def _check(self, request: LaunchRequest) -> None:
        if request.nodes > 1:
            raise Refused("This machine is one node.", hint="Set resources.nodes to 1, or resources.infra.")
        if request.gpus > len(self.devices):
            raise Refused(
                f"The job wants {request.gpus} GPUs; this machine has {len(self.devices)}.",
                hint="Lower resources.gpus, or set resources.infra to where there are more.",
                field="resources.gpus",
            )
        if request.slots > self.capacity():
            raise Refused(
                f"The job takes {request.slots} slots; this machine has {self.capacity()}.",
                hint="Lower resources.gpus, or raise AINFINITY_LOCAL_SLOTS.",
                field="AINFINITY_LOCAL_SLOTS",
            )
        python = interpreter_of(request)
        if python not in self._equipped:
            check_modules(python, self._modules)
            self._equipped.add(python)

    def _launch(self, folder: AttemptFolder, request: LaunchRequest) -> None:
        earlier = read_record(folder.request)
        if earlier is None:
            earlier = self._write_request(folder, request)
        place = self._observer.index / request.name
        entry = {"at": self._clock.now(), "devices": earlier["devices"]}
        if folder.claim.exists():
            create_once(place, entry)
            return
        if has_complaint(folder) and not Look().has(folder) and folder.abandon("its supervisor could not start"):
            raise Refused(
                f"The supervisor of {request.name} could not start.", hint=f"See {folder.log}; try `ainfinity doctor`."
            )
        # Listed first: a process that nobody could see would never be ended.
        write_record(place, entry)
        environment = make_environment(request, os.environ, earlier["devices"], self._settings.cache_dir)
        environment[MARK] = folder.mark
        environment[DEADLINE_FILE_MARK] = str(folder.deadline)
        try:
            self._spawn(folder, environment)
        except OSError as error:
            place.unlink(missing_ok=True)
            raise ComputeUnreachable(
                f"No process can be started: {error.strerror}.", hint="End other programs; it is tried again."
            ) from None

    def _write_request(self, folder: AttemptFolder, request: LaunchRequest) -> dict[str, Any]:
        copy_code(folder)
        write_record(folder.recipe, request.recipe)
        record = {
            "name": request.name,
            "job_id": request.job_id,
            "attempt": request.attempt,
            "command": list(self._command(request, folder.recipe)),
            "python_path": trainer_path(folder, os.environ),
            "output_dir": request.output_dir,
            "checkpoint_dir": request.checkpoint_dir,
            "devices": self._choose_devices(request),
            "deadline": request.deadline,
            "grace": self._settings.stop_grace,
        }
        create_once(folder.request, record)
        return record

    def _choose_devices(self, request: LaunchRequest) -> list[str]:
        """Return the GPUs for the attempt, none for one that runs on the CPU.

        A job that names no GPUs gets one a slot if it has no more ranks than that: two ranks cannot share one.
        """
        wanted = request.gpus or (request.slots if request.ranks <= request.slots else 0)
        wanted = min(wanted, len(self.devices))
        if not wanted:
            return []
        used = self._used_devices()
        chosen = sorted(self.devices, key=used.count)[:wanted]
        # More slots than GPUs is a wish to share them.
        if self.capacity() <= len(self.devices) and any(device in used for device in chosen):
            raise ComputeUnreachable(
                f"Of {len(self.devices)} GPUs, {len(set(used))} are in use; the job wants {wanted}.",
                hint="It starts when some are free.",
            )
        return chosen

    def _used_devices(self) -> list[str]:
        look = Look()
        live = [name for name in self._observer.names() if not self._observer.is_over(name, look)]
        entries = [read_record(self._observer.index / name) or {} for name in live]
        return [str(device) for entry in entries for device in entry.get("devices", ())]

    def _spawn(self, folder: AttemptFolder, environment: Mapping[str, str]) -> None:
        # Into the attempt's own log: if the supervisor cannot start, that is where people look for the reason.
        log = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "ainfinity.compute.supervisor", str(folder.path)],
                cwd=folder.path,
                env={**environment, "PYTHONPATH": supervisor_path(os.environ)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)
        self._supervisors.append(child)

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        """Let one launch at a time choose among the GPUs, over all processes."""
        handle = os.open(self._observer.index.parent / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            give_up = time.monotonic() + _LOCK_SECONDS
            while not _try_lock(handle):
                if time.monotonic() > give_up:
                    raise ComputeUnreachable("Another launch takes too long.", hint="It is tried again.")
                time.sleep(0.01)
            yield
        finally:
            os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

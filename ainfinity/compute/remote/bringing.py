"""Seeing to it that an export lies where it outlives its machine: here, or in the job's storage."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from ainfinity.compute.outputs import find_fault, inside_job
from ainfinity.compute.remote.journal import LOG
from ainfinity.compute.remote.record import Records
from ainfinity.compute.remote.rows import Gone
from ainfinity.compute.remote.ssh import Machine, hosts_in, word, write_config
from ainfinity.compute.remote.transfer import RemoteFile, fetch_files, hashes
from ainfinity.core.exceptions import ComputeUnreachable, DataInvalid, FolderUnwritable, NotFound, Refused
from ainfinity.schema.training_job import Resources
from skylaunch.places import Places, find_places
from training.protocol import parse_line

_OUTPUT: Final = "output"
#: How much of a log is looked through for the line that says what the storage gave back.
_MOST_LOG: Final = 16 << 20
_WRITING: Final = 90.0


class RemoteTransfer:
    """The `Transfer` of `SkyPilotCompute`. `config_of` gives the ssh configuration of a cluster, or raises Gone."""

    def __init__(self, attempts: Path, jobs: Path, configs: Path, config_of: Callable[[str], str]) -> None:
        self._records = Records(attempts)
        self._attempts = attempts
        self._jobs = jobs
        self._configs = configs
        self._config_of = config_of

    def verify(self, name: str, job_id: str, storage: str, files: Sequence[Mapping[str, Any]]) -> str:
        """See to it that the named files lie in a durable place as they were written; "" or what is wrong.

        Errors:
            ComputeUnreachable: it is not known yet, or they cannot be had now; what came stays.
        """
        try:
            wanted = [_remote_file(entry, job_id) for entry in files]
        except (KeyError, TypeError, ValueError):
            return "the trainer named a file outside the job's output, or not with its size and sha256"
        if not wanted:
            return "the attempt named no files"
        return self._check_storage(name, job_id, storage, wanted) if storage else self.bring_home(name, job_id, wanted)

    def bring_home(self, name: str, job_id: str, files: Sequence[RemoteFile]) -> str:
        """Fetch an export from the machine's own disk to the job's output folder here; raises as `verify`."""
        target = self._jobs / job_id / _OUTPUT
        if not _find_fault(target, files):
            return ""
        try:
            machine = self._machines(name, name)[0]
            fetch_files(machine, _places("", job_id, name).output, files, target)
        except Gone:
            return "its machine went before its output was brought home"
        except (NotFound, DataInvalid, Refused) as error:
            return error.message
        except FolderUnwritable as error:
            raise ComputeUnreachable(error.message, hint=error.hint) from error
        return _find_fault(target, files)

    def extend(self, name: str, cluster: str, deadline: float | None) -> None:
        """Write the attempt's new deadline where its machines look for it. Errors: ComputeUnreachable."""
        text = "none" if deadline is None else str(int(deadline))
        path = word(self._deadline_path(name))
        # Beside its place first: a guard that reads half a number would end the attempt.
        script = f'set -e\nmkdir -p "$(dirname {path})"\necho {text} >{path}.new\nmv {path}.new {path}\n'
        try:
            machines = self._machines(name, cluster)
        except Gone as error:
            raise ComputeUnreachable(f"{cluster} is not up: {name} cannot be told another deadline.") from error
        for machine in machines:
            ran = machine.run(["sh", "-s"], script=script, limit=_WRITING)
            if ran.code:
                raise ComputeUnreachable(f"{machine.host} cannot be told another deadline: {ran.errors}.")

    def _deadline_path(self, name: str) -> str:
        record = self._records.read(name)
        if record is None:
            return _places("", name, name).deadline
        return _places(record.storage, record.job, name).deadline

    def _machines(self, name: str, cluster: str) -> list[Machine]:
        text = self._config_of(cluster)
        hosts = hosts_in(text)
        if not hosts:
            raise Gone(f"{cluster} cannot be reached by ssh now.")
        config = write_config(self._configs, cluster, text)
        return [Machine(config, host) for host in hosts]

    def _check_storage(self, name: str, job_id: str, storage: str, wanted: Sequence[RemoteFile]) -> str:
        """Compare with what was read back from the storage: on the machine by another process, and here if visible."""
        here = Path(storage) / job_id / _OUTPUT
        if storage.startswith("/") and here.is_dir():
            return _find_fault(here, wanted)
        found = self._read_back(name, job_id)
        if found is None:
            found = self._ask_machine(name, job_id, storage, wanted)
        if isinstance(found, str):
            return found
        for file in wanted:
            if found.get(file.name) != file:
                return f"{file.name}: the storage does not give back what was written"
        return ""

    def _read_back(self, name: str, job_id: str) -> dict[str, RemoteFile] | None:
        """Return what the last `verified` line of the attempt's log says, or None."""
        try:
            with (self._attempts / name / LOG).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _MOST_LOG))
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ComputeUnreachable(f"The log of {name} cannot be read: {error.strerror}.") from error
        for raw in reversed(lines):
            line = parse_line(raw.decode(errors="replace")) if b'"verified"' in raw else None
            if line is None or line.kind != "verified":
                continue
            output, entries = str(line.data.get("output")), line.data.get("files")
            try:
                files = [
                    _remote_file(entry | {"path": os.path.join(output, str(entry["path"]))}, job_id)
                    for entry in cast("list[dict[str, Any]]", entries)
                ]
            except (KeyError, TypeError, ValueError):
                continue
            return {file.name: file for file in files}
        return None

    def _ask_machine(
        self, name: str, job_id: str, storage: str, wanted: Sequence[RemoteFile]
    ) -> dict[str, RemoteFile] | str:
        """Have the files read on the attempt's machine, where its own word for it did not come through."""
        folder = _places(storage, job_id, name).output
        record = self._records.read(name)
        cluster = (record.cluster if record is not None else "") or name
        try:
            found = hashes(self._machines(name, cluster)[0], folder, [file.name for file in wanted])
        except Gone:
            return f"its machine went before anybody read {storage} back"
        except NotFound as error:
            return error.message
        return {file.name: file for file in found}


def _remote_file(entry: Mapping[str, Any], job_id: str) -> RemoteFile:
    size = int(entry["size"])
    if size < 0:
        raise ValueError(size)
    return RemoteFile(inside_job(str(entry["path"]), job_id, _OUTPUT), size, str(entry["sha256"]).lower())


def _find_fault(folder: Path, files: Sequence[RemoteFile]) -> str:
    return find_fault(folder, [{"path": file.name, "size": file.size, "sha256": file.sha256} for file in files])


def _places(storage: str, job_id: str, name: str) -> Places:
    return find_places(Resources(infra="skypilot", storage=storage or None), job_id, name)

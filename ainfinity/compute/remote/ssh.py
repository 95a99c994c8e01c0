"""Commands on a machine, and files from it, through OpenSSH with the configuration that SkyPilot gives."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ainfinity.core.exceptions import ComputeUnreachable, FolderUnwritable, MissingTool
from ainfinity.core.redact import redact

_OPTIONS: Final = (
    "BatchMode=yes", "ConnectTimeout=60", "ServerAliveInterval=15", "ServerAliveCountMax=4", "LogLevel=ERROR",
    "ForwardAgent=no", "ForwardX11=no", "RequestTTY=no", "ControlMaster=no",
)  # fmt: skip
_LOST_CONNECTION: Final = 255
#: Seconds after which a command that is silent is given up, and that one which is told to end may take.
SILENCE: Final = 90.0
_GRACE: Final = 5.0
_READ: Final = 1 << 20
_MOST_ERRORS: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a command: its exit code, its output, and the end of what it complained."""

    code: int
    output: bytes
    errors: str


class Machine:
    """One machine. `config` is a file for `ssh -F`, `host` a name in it."""

    def __init__(self, config: Path, host: str) -> None:
        self.config = config
        self.host = host

    def argv(self, command: str) -> list[str]:
        """Return the command line that runs a line of shell there."""
        options = [word for option in _OPTIONS for word in ("-o", option)]
        return ["ssh", "-F", str(self.config), *options, self.host, "--", command]

    def run(self, argv: Sequence[str], *, script: str = "", limit: float = 60.0) -> Ran:
        """Run a command and wait for it; `script` is its standard input, `limit` in seconds.

        Errors:
            ComputeUnreachable: the machine does not answer, or not in time. MissingTool: there is no ssh here.
        """
        with self.stream(argv, script=script, silence=limit, limit=limit) as pieces:
            output = b"".join(pieces.pieces)
        return Ran(pieces.code, output, pieces.errors)

    @contextlib.contextmanager
    def stream(
        self, argv: Sequence[str], *, script: str = "", silence: float = SILENCE, limit: float | None = None
    ) -> Generator[Stream]:
        """Run a command and give its output as it comes; one that is not read to its end is ended. Raises as `run`."""
        try:
            process = subprocess.Popen(
                self.argv(shlex.join(argv)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # with its proxy it is ended as a group
            )
        except FileNotFoundError:
            raise MissingTool("There is no `ssh` on this computer.", hint="Install OpenSSH's client.") from None
        try:
            yield Stream(self.host, process, script.encode(), silence, limit)
        finally:
            _end(process)


class Stream:
    """The output of a running command."""

    def __init__(
        self, host: str, process: subprocess.Popen[bytes], script: bytes, silence: float, limit: float | None
    ) -> None:
        self.code = 0
        self.errors = ""
        self._host = host
        self._process = process
        self._script = script
        self._silence = silence
        self._until = None if limit is None else time.monotonic() + limit

    @property
    def pieces(self) -> Iterator[bytes]:
        """Yield the output in pieces; at its end `code` and `errors` are known. Errors: ComputeUnreachable."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        script, errors = memoryview(self._script), b""
        inward = process.stdin.fileno()
        os.set_blocking(inward, False)
        if not script:
            process.stdin.close()
        reading = [process.stdout.fileno(), process.stderr.fileno()]
        while reading:
            ready, writable, _ = select.select(reading, [inward] if script else [], [], self._left())
            if not ready and not writable:
                raise self._unreachable("it was silent for too long")
            if writable:
                script = self._feed(inward, script)
                if not script:
                    process.stdin.close()
            for descriptor in ready:
                data = os.read(descriptor, _READ)
                if not data:
                    reading.remove(descriptor)
                elif descriptor == process.stderr.fileno():
                    errors = (errors + data)[-_MOST_ERRORS:]
                else:
                    yield data
        self.errors = redact(errors.decode(errors="replace")).strip()
        self.code = process.wait()
        if self.code == _LOST_CONNECTION:
            raise self._unreachable(_last_line(self.errors))

    def _left(self) -> float:
        if self._until is None:
            return self._silence
        return max(0.0, min(self._silence, self._until - time.monotonic()))

    def _feed(self, inward: int, script: memoryview) -> memoryview:
        try:
            return script[os.write(inward, script) :]
        except BrokenPipeError:  # it does not read all of it, and its exit code tells why
            return script[:0]

    def _unreachable(self, reason: str) -> ComputeUnreachable:
        return ComputeUnreachable(f"{self._host} does not answer over ssh: {reason or 'the connection was lost'}.")


def word(path: str) -> str:
    """Return a path as one word of shell; a leading `~/` is the home there."""
    return f'"$HOME"/{shlex.quote(path[2:])}' if path.startswith("~/") else shlex.quote(path)


def write_config(folder: Path, cluster: str, text: str) -> Path:
    """Write a configuration that only its owner may read, and return its path. Errors: FolderUnwritable."""
    path = folder / re.sub(r"[^A-Za-z0-9._-]", "_", cluster)
    aside = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            # OpenSSH takes `~` for the home of the account, whatever $HOME says.
            file.write(re.sub(r"(?<=[\s\"=])~/", f"{Path.home()}/", text))
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise FolderUnwritable(f"{path} cannot be written: {error.strerror}.", hint="Free some space.") from error
    return path


def hosts_in(text: str) -> list[str]:
    """Return the names of the machines in a configuration, the head first."""
    return [name for names in re.findall(r"^Host[ \t]+(.+)$", text, re.MULTILINE) for name in names.split()]


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _last_line(text: str) -> str:
    lines = text.splitlines()
    return lines[-1].rstrip(".") if lines else ""

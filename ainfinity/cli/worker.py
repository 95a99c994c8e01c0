"""`ainfinity worker`: run, start, stop and install the process that carries jobs out."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ainfinity.cli.output import moment, say, write, write_json
from ainfinity.cli.session import settings_with_logging, with_client
from ainfinity.core.constants import EXIT_OK, EXIT_UNREACHABLE
from ainfinity.core.exceptions import FolderUnwritable, NotSupported, Refused, Unreachable

if TYPE_CHECKING:
    from ainfinity.client.port import Client
    from ainfinity.core.config import Settings
    from ainfinity.schema.views import WorkerStatus

#: Seconds that a worker gets to take its lease, or to give it back.
_PATIENCE: Final = 30.0
_POLL: Final = 0.05


def run_worker(*, until_idle: bool) -> int:
    """Be the worker, in the foreground."""
    from ainfinity.worker import main

    settings = settings_with_logging()
    say(f"Carrying jobs out; the log is {settings.data_dir / 'worker.log'}. Ctrl-C ends this, and jobs go on.")
    return main(["--until-idle"] if until_idle else [])


def start_worker(*, as_json: bool) -> int:
    """Start a worker that stays until it is stopped. Errors: Unreachable if it does not come up."""

    async def body(client: Client) -> WorkerStatus:
        from ainfinity.client.local import start_worker as start

        status = await client.worker()
        if status.alive:
            say(f"A worker is alive: {status.holder}.")
            return status
        settings = settings_with_logging()
        start(settings, until_idle=False)
        status = await _until(client, alive=True)
        if not status.alive:
            raise Unreachable("The worker did not come up.", hint=f"See {settings.data_dir / 'worker.log'}.")
        say(f"Started {status.holder}.")
        return status

    return _report(with_client(body, start_workers=False), as_json=as_json)


def stop_worker(*, as_json: bool) -> int:
    """End the worker of this machine. Errors: Refused for one elsewhere, Unreachable if it does not go."""

    async def body(client: Client) -> WorkerStatus:
        status = await client.worker()
        if not status.alive:
            say("No worker is alive.")
            return status
        os.kill(_pid_here(status.holder), signal.SIGTERM)
        status = await _until(client, alive=False)
        if status.alive:
            raise Unreachable(f"{status.holder} has not gone yet.", hint="`ainfinity worker status` tells when it has.")
        say("The worker is gone; running jobs go on." if status.live_jobs else "The worker is gone.")
        return status

    return _report(with_client(body, start_workers=False), as_json=as_json)


def show_status(*, as_json: bool) -> int:
    """Tell whether a worker is alive; exit code 4 if jobs wait and none is."""
    status = with_client(lambda client: client.worker(), start_workers=False)
    if not as_json:
        state = f"alive: {status.holder}, until {moment(status.expires_at)}" if status.alive else "none is alive"
        write(f"worker  {state}")
        write(f"jobs    {status.live_jobs} to carry out")
    _report(status, as_json=as_json)
    return EXIT_OK if status.alive or not status.live_jobs else EXIT_UNREACHABLE


def _report(status: WorkerStatus, *, as_json: bool) -> int:
    if as_json:
        write_json(status)
    return EXIT_OK


async def _until(client: Client, *, alive: bool) -> WorkerStatus:
    deadline = time.monotonic() + _PATIENCE
    while (status := await client.worker()).alive != alive and time.monotonic() < deadline:
        await asyncio.sleep(_POLL)
    return status


def _pid_here(holder: str) -> int:
    """Return the pid of a lease's holder `host:pid:nonce`, making sure that it still is a worker of this machine."""
    import psutil

    host, _, rest = holder.partition(":")
    pid = rest.partition(":")[0]
    if host != socket.gethostname() or not pid.isdigit():
        raise Refused(f"The worker runs on {host}.", hint="Stop it there.")
    try:
        command = " ".join(psutil.Process(int(pid)).cmdline())
    except psutil.Error:
        command = ""
    if "ainfinity" not in command:
        raise Refused(f"The worker {holder} is dead; its lease runs out by itself.", hint="Try again in a few seconds.")
    return int(pid)


def install_worker() -> int:
    """Write a user service and say how to enable it. Errors: NotSupported, FolderUnwritable."""
    settings = settings_with_logging()
    if sys.platform == "darwin":
        path = Path.home() / "Library/LaunchAgents/io.ainfinity.worker.plist"
        text, steps = _launchd(settings), f"launchctl bootstrap gui/{os.getuid()} {path}"
    elif sys.platform.startswith("linux"):
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        path = base / "systemd/user/ainfinity.service"
        text = _systemd(settings)
        # Lingering keeps user services, and with them the jobs, after the last log-out and from boot on.
        steps = "systemctl --user daemon-reload && systemctl --user enable --now ainfinity && loginctl enable-linger"
    else:
        raise NotSupported(f"There is no user service for {sys.platform}.", hint="Run `ainfinity worker run` yourself.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FolderUnwritable(f"{path} cannot be written: {error.strerror}.", hint="Check its owner.") from None
    write(str(path))
    say(f"Enable it:\n  {steps}")
    if settings.database_url:
        say("AINFINITY_DATABASE_URL may hold a password, so it is not in that file: give it to the service yourself.")
    if sys.platform != "darwin" and not Path("/run/systemd/system").exists():
        say(
            "systemd does not run here, so that works only once it does; without it, jobs start a worker by themselves."
        )
    return EXIT_OK


def _environment(settings: Settings) -> dict[str, str]:
    """Return what the service must know: this user's settings, but no secret; those stay where they are stored."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key.startswith("AINFINITY_") and key not in ("AINFINITY_TOKEN", "AINFINITY_DATABASE_URL")
    }
    places = {"AINFINITY_DATA_DIR": str(settings.data_dir), "AINFINITY_CONFIG_DIR": str(settings.config_dir)}
    return kept | places | {"PYTHONSAFEPATH": "1"}


def _systemd(settings: Settings) -> str:
    def quoted(text: str, *, dollar: str) -> str:
        escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", dollar)
        return f'"{escaped}"'

    variables = [f"{key}={value}" for key, value in sorted(_environment(settings).items()) if "\n" not in value]
    lines = [
        "[Unit]",
        "Description=ainfinity worker",
        "",
        "[Service]",
        f"ExecStart={quoted(sys.executable, dollar='$$')} -m ainfinity.worker",
        *(f"Environment={quoted(variable, dollar='$')}" for variable in variables),
        "# Running jobs outlive the worker that started them.",
        "KillMode=process",
        "Restart=on-failure",
        "RestartSec=5",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]
    return "\n".join(lines) + "\n"


def _launchd(settings: Settings) -> str:
    import plistlib

    return plistlib.dumps(
        {
            "Label": "io.ainfinity.worker",
            "ProgramArguments": [sys.executable, "-m", "ainfinity.worker"],
            "EnvironmentVariables": _environment(settings),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "AbandonProcessGroup": True,  # running jobs outlive the worker that started them
            "StandardOutPath": str(settings.data_dir / "worker.out"),
            "StandardErrorPath": str(settings.data_dir / "worker.out"),
        }
    ).decode()

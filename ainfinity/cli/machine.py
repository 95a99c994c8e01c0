"""The verbs on a job's machine: extend, keep, teardown, ssh, exec."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ainfinity.cli.output import duration, interactive, moment, per_hour, say, write, write_json
from ainfinity.cli.session import with_client
from ainfinity.core.constants import EXIT_OK, EXIT_REFUSED
from ainfinity.core.exceptions import ApprovalNeeded, MissingTool, UsageError

if TYPE_CHECKING:
    from ainfinity.client.port import Client
    from ainfinity.schema.views import JobDetail, JobRow


def seconds_of(text: str, *, field: str) -> float:
    """Return the seconds in `2h`, `+30m` or `90s`. Errors: UsageError."""
    from ainfinity.schema.training_job import parse_duration

    try:
        seconds = float(parse_duration(text.strip().removeprefix("+")))
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise UsageError(f"{text!r} is no time.", hint="Give it as 30m, 2h or 1d.", field=field)
    return seconds


def extend_job(job: str, by: str, *, as_json: bool) -> int:
    """Move a job's deadline. Errors: NotFound, WrongState."""
    seconds = seconds_of(by, field="TIME")

    async def body(client: Client) -> tuple[JobRow, JobDetail]:
        row = await client.extend(job, seconds)
        await client.ensure_worker()
        return row, await client.get_job(row.id)

    row, detail = with_client(body)
    say(f"{row.name} may run {duration(seconds)} longer. Its machine is told; `ainfinity show {row.name}` says when.")
    deadline = detail.attempts[-1].deadline if detail.attempts else None
    if deadline is not None:
        say(f"Its deadline as its machine knows it now: {moment(deadline)}.")
    return _report(row, as_json=as_json)


def keep_job(job: str, time: str, *, as_json: bool) -> int:
    """Keep a job's machine. Errors: NotFound, WrongState."""
    seconds = seconds_of(time, field="TIME")

    async def body(client: Client) -> JobRow:
        row = await client.keep(job, seconds)
        await client.ensure_worker()
        return row

    row = with_client(body)
    say(
        f"The machine of {row.name} is kept for {duration(seconds)}, at {per_hour(row.price_per_hour)}. "
        f"End it earlier: `ainfinity teardown {row.name}`."
    )
    return _report(row, as_json=as_json)


def teardown_job(job: str, *, yes: bool, as_json: bool) -> int:
    """End a job's machine now. Errors: NotFound, WrongState; ApprovalNeeded where no one can be asked."""
    if not yes:
        if not interactive():
            raise ApprovalNeeded(
                f"What lies on the machine of {job} alone is lost with it, and no one is here to ask.",
                hint="Pass --yes. `ainfinity pull` brings it home before.",
            )
        sys.stderr.write(f"End the machine of {job}? What lies there alone is lost. [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            say("The machine stays.")
            return EXIT_REFUSED

    async def body(client: Client) -> JobRow:
        row = await client.teardown(job)
        await client.ensure_worker()
        return row

    row = with_client(body)
    say(f"The machine of {row.name} is being ended; `ainfinity show {row.name}` tells when it is gone.")
    return _report(row, as_json=as_json)


def _report(row: JobRow, *, as_json: bool) -> int:
    if as_json:
        write_json(row)
    else:
        write(row.id)
    return EXIT_OK


def open_shell(job: str, command: Sequence[str], node: int) -> int:
    """Run a shell or a command on a job's machine, with this process's own streams; return its exit code.

    Errors:
        NotFound, WrongState: there is no such machine. MissingTool: there is no ssh here. ComputeUnreachable.
    """
    shell = with_client(lambda client: client.shell(job, command, node=node), start_workers=False)
    if not command and interactive():
        say(f"On {shell.machine}. `exit` comes back; the job goes on.")
    sys.stdout.flush()
    # Ctrl-C is for what runs there: ssh on a terminal passes it on, and without one dies of it as it should.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if interactive() else signal.SIG_DFL)
    try:
        code = subprocess.run(shell.argv, check=False, env=_environment()).returncode
    except FileNotFoundError:
        raise MissingTool("There is no ssh on this machine.", hint="Install OpenSSH's client.") from None
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


def _environment() -> dict[str, str]:
    """Return the environment without what is ours: ssh may be configured to send variables along."""
    return {key: value for key, value in os.environ.items() if not key.startswith("AINFINITY_")}

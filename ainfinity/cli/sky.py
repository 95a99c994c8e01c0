"""`ainfinity sky`, and the question before a launch: is SkyPilot's API server there, and may it be started?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ainfinity.cli.output import interactive, say, write, write_json
from ainfinity.cli.session import with_client
from ainfinity.core.constants import EXIT_OK, EXIT_UNREACHABLE
from ainfinity.core.exceptions import ComputeUnreachable

if TYPE_CHECKING:
    from ainfinity.client.port import Client
    from ainfinity.schema.machines import SkyStatus


def show_sky(*, as_json: bool) -> int:
    """Write how the API server is; exit code 4 if it cannot be used."""
    status = with_client(lambda client: client.sky_status(), start_workers=False)
    if as_json:
        write_json(status)
    else:
        write(f"server   {status.endpoint}{' (this machine)' if status.local else ''}")
        write(f"state    {status.problem or 'healthy'}")
        if status.version:
            write(f"version  {status.version}{f', as {status.user}' if status.user else ''}")
        if status.problem:
            say(_next_step(status))
    return EXIT_UNREACHABLE if status.problem else EXIT_OK


def start_sky(*, yes: bool, as_json: bool) -> int:
    """Start this machine's API server. Errors: ComputeUnreachable without a yes, or if it does not come up."""

    async def body(client: Client) -> SkyStatus:
        return await need_sky(client, yes=yes)

    status = with_client(body, start_workers=False)
    if as_json:
        write_json(status)
    else:
        say(f"SkyPilot's API server answers on {status.endpoint}.")
    return EXIT_OK


async def need_sky(client: Client, *, yes: bool) -> SkyStatus:
    """Return the API server's state once it can be used; a missing one of this machine is started on a yes.

    Errors:
        ComputeUnreachable: it cannot be used, and what to do.
    """
    status = await client.sky_status()
    if not status.problem:
        return status
    if status.reachable or not status.local:
        raise ComputeUnreachable(f"SkyPilot's API server: {status.problem}", hint=_next_step(status))
    if not yes and not _agreed(status):
        raise ComputeUnreachable(
            f"No SkyPilot API server runs on this machine ({status.endpoint}).", hint=_next_step(status)
        )
    say("Starting SkyPilot's API server on this machine; the first time takes about half a minute.")
    return await client.start_sky()


def _agreed(status: SkyStatus) -> bool:
    if not interactive():
        return False
    sys.stderr.write(f"SkyPilot's API server does not run on this machine ({status.endpoint}). Start it? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _next_step(status: SkyStatus) -> str:
    if status.local and not status.reachable:
        return "Start it with `ainfinity sky start` (or --yes), or set SKYPILOT_API_SERVER_ENDPOINT to one elsewhere."
    return status.hint or "See that SKYPILOT_API_SERVER_ENDPOINT is right and that its server runs."

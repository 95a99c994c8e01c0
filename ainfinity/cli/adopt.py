"""`ainfinity adopt`: jobs and clusters that were started with plain `sky`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ainfinity.cli.gpus import tell_age
from ainfinity.cli.output import duration, per_hour, say, write, write_json, write_table
from ainfinity.cli.session import with_client
from ainfinity.core.constants import EXIT_OK
from ainfinity.core.exceptions import UsageError

if TYPE_CHECKING:
    from ainfinity.client.port import Client
    from ainfinity.schema.outside import AdoptableRow
    from ainfinity.schema.views import JobRow

_HEAD = ("KIND", "ID", "NAME", "STATUS", "AGE", "$/H", "JOB", "GIVEN")


def list_adoptable(*, refresh: bool, as_json: bool) -> int:
    """Write what can be adopted. Errors: ComputeUnreachable if SkyPilot does not answer and never did."""
    found = with_client(lambda client: client.adoptable(refresh=refresh), start_workers=False)
    if as_json:
        write_json(found)
        return EXIT_OK
    if found.rows:
        now = time.time()
        write_table(_HEAD, [_row(row, now) for row in found.rows], right=(4, 5))
        say("`ainfinity adopt --cluster NAME` or `--managed ID` shows one among the jobs here.")
    else:
        say("Nothing of plain SkyPilot runs.")
    tell_age(found.at, found.error)
    return EXIT_OK


def _row(row: AdoptableRow, now: float) -> tuple[str, ...]:
    age = "-" if row.launched_at is None else duration(now - row.launched_at)
    given = row.given or "unknown"
    return (row.kind, row.ident, row.name, row.status, age, per_hour(row.price_per_hour), row.job_id or "-", given)


def adopt_one(managed: str, cluster: str, *, claim: bool, as_json: bool) -> int:
    """Adopt one, or claim what was adopted before. Errors: UsageError, NotFound."""
    if managed and cluster:
        raise UsageError("--managed and --cluster exclude each other.", hint="Give one of them.")
    if managed and not managed.isdigit():
        hint = "`ainfinity adopt --list` tells the number of each managed job."
        raise UsageError(f"{managed!r} is no number of a managed job.", hint=hint, field="managed")

    async def body(client: Client) -> JobRow:
        row = await client.adopt("managed" if managed else "cluster", managed or cluster, claim=claim)
        await client.ensure_worker()
        return row

    row = with_client(body)
    if claim:
        say(f"{row.name} ({row.id}) can be ended from here: `ainfinity cancel {row.name}`.")
    else:
        say(f"{row.name} ({row.id}) is shown, and nothing else is done to it until it is adopted with --claim.")
    if as_json:
        write_json(row)
    else:
        write(row.id)
    return EXIT_OK

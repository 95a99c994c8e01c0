"""`ainfinity orphans`: machines with this installation's name that no live job owns."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ainfinity.cli.gpus import tell_age
from ainfinity.cli.output import duration, money, per_hour, say, write_json, write_table
from ainfinity.cli.session import with_client
from ainfinity.core.constants import EXIT_OK, EXIT_UNREACHABLE
from ainfinity.core.exceptions import UsageError

if TYPE_CHECKING:
    from ainfinity.schema.outside import OrphanRow

_HEAD = ("NAME", "KIND", "AGE", "$/H", "LEAKED", "THEN", "GIVEN")


def list_orphans(*, refresh: bool, as_json: bool) -> int:
    """Write the orphans, the oldest first."""
    found = with_client(lambda client: client.orphans(refresh=refresh))
    # Never answered: that none is known says nothing then.
    code = EXIT_OK if found.rows or found.at else EXIT_UNREACHABLE
    if as_json:
        write_json(found)
        return code
    if found.rows:
        now = time.time()
        write_table(_HEAD, [_row(row, now) for row in found.rows], right=(2, 3, 4))
        say("`ainfinity orphans remove NAME` ends one now; `ainfinity orphans keep NAME` leaves it alone.")
    elif found.at:
        say("No orphans: every machine with this installation's name belongs to a live job.")
    if found.at:
        tell_age(found.at, found.error)
    else:
        say(f"SkyPilot was not asked: {found.error.get('message', '')} {found.error.get('hint', '')}".rstrip())
    return code


def _row(row: OrphanRow, now: float) -> tuple[str, ...]:
    if row.answer:
        then = f"{row.answer} ({row.answered_by})"
    else:
        then = f"removed in {duration(max(0.0, (row.removed_at or now) - now))}"
    since = row.first_seen if row.launched_at is None else row.launched_at
    return (
        row.name,
        row.kind,
        duration(now - since),
        per_hour(row.price_per_hour),
        money(row.leaked),
        then,
        row.given or "unknown",
    )


def answer_orphan(answer: str, name: str, *, as_json: bool) -> int:
    """Keep or remove one. Errors: UsageError, NotFound."""
    if answer not in ("keep", "remove"):
        raise UsageError(f"{answer!r} is no answer.", hint="`ainfinity orphans keep NAME`, or remove NAME.")
    if not name:
        raise UsageError(f"Which one shall be {answer}ed?".replace("removeed", "removed"), hint=_hint(answer))
    row = with_client(lambda client: client.answer_orphan(name, "keep" if answer == "keep" else "remove"))
    if answer == "keep":
        say(f"{row.name} is left alone; it costs {per_hour(row.price_per_hour)}.")
    else:
        say(f"{row.name} is being removed; `ainfinity orphans` shows it until it is gone.")
    if as_json:
        write_json(row)
    return EXIT_OK


def _hint(answer: str) -> str:
    return f"`ainfinity orphans` lists them; then `ainfinity orphans {answer} NAME`."

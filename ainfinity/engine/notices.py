"""What a notice says: one event as its places are told it."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy.engine import Connection

from ainfinity.schema.event import Event, EventType
from ainfinity.store import events, jobs, orphans
from ainfinity.store.outbox import Claim

#: Where the owner of an orphan goes on from its notice.
COMMANDS: Final = (
    "ainfinity orphans",
    "ainfinity orphans keep {name}",
    "ainfinity orphans remove {name}",
)


def notice_of(connection: Connection, claim: Claim, now: float) -> dict[str, Any]:
    """Return the notice of a claim, as of `now` (Unix seconds). Money is in dollars, None where it is unknown."""
    event = events.get(connection, claim.event_seq)
    rows = jobs.by_ids(connection, [claim.job_id])
    row = rows[0] if rows else None
    notice = {
        "id": claim.id,
        "event": str(event.type),
        "seq": event.seq,
        "at": event.at,
        "job_id": claim.job_id,
        "job": row.name if row else "",
        "state": row.state if row else "",
        "owner": row.owner if row else "",
        "loss": row.progress.loss if row else None,
        "message": row.error_message if row else "",
    }
    if event.type in (EventType.ORPHAN_FOUND, EventType.ORPHAN_REMOVED):
        notice |= _orphan(connection, event, now)
    return notice


def _orphan(connection: Connection, event: Event, now: float) -> dict[str, Any]:
    name, price, leaked = str(event.data.get("name", "")), event.data.get("price_per_hour"), event.data.get("leaked")
    if event.type == EventType.ORPHAN_REMOVED:
        message = f"{name}, which no job owned, is gone. It cost {_dollars(leaked)}."
        return {"orphan": name, "price_per_hour": price, "leaked": leaked, "message": message}
    known = orphans.get(connection, name)
    leaked = known.leaked(now) if known else leaked
    commands = [command.format(name=name) for command in COMMANDS]
    what = f" ({event.data['given']})" if event.data.get("given") else ""
    message = (
        f"{name}{what} runs and no job owns it: {_dollars(price)}/h, {_dollars(leaked)} so far. "
        f"Look with `{commands[0]}`; answer with `{commands[1]}` or `{commands[2]}`; without an answer it is removed."
    )
    return {
        "orphan": name,
        "price_per_hour": price,
        "leaked": leaked,
        "removed_at": event.data.get("removed_at"),
        "commands": commands,
        "message": message,
    }


def _dollars(amount: Any) -> str:
    if not isinstance(amount, int | float):
        return "an unknown amount"
    if 0 < amount < 0.001:
        return "less than $0.001"
    return f"${amount:.2f}" if amount >= 1 or not amount else f"${amount:.2g}"

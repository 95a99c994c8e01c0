"""`ainfinity events`: what happened, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ainfinity.cli.output import harmless, moment, number, say, shorten, write, write_csv, write_json
from ainfinity.cli.session import on_interrupt, with_client
from ainfinity.core.constants import EXIT_OK
from ainfinity.core.exceptions import UsageError

if TYPE_CHECKING:
    from ainfinity.client.port import Client
    from ainfinity.schema.event import Event

_CSV = ("seq", "at", "type", "job_id", "attempt", "actor", "data")
_PAGE = 1000
_LONGEST = 200
#: Values that are times.
_MOMENTS = frozenset({"deadline", "until", "paid_from", "launched_at", "first_seen", "removed_at"})


def show_events(job: str, *, follow: bool, after: int, limit: int, as_json: bool, as_csv: bool) -> int:
    """Write events of one job or of all, and with `follow` those to come."""
    if as_csv and (as_json or follow):
        raise UsageError("--csv goes with neither --json nor --follow.", hint="Give one of them.")

    async def body(client: Client) -> int:
        job_id = (await client.get_job(job)).job.id if job else ""
        if follow:
            on_interrupt("Stopped watching; the jobs go on.")
            return await _follow(client, job_id, after, as_json=as_json)
        found = await client.events(job_id, after=after, limit=limit)
        if as_json:
            write_json(found)
        elif as_csv:
            write_csv(_CSV, (_csv_row(event) for event in found))
        else:
            for event in found:
                write(_line(event))
            if len(found) == limit:
                say(f"The first {limit}; go on with --after {found[-1].seq}.")
        return EXIT_OK

    return with_client(body)


async def _follow(client: Client, job_id: str, after: int, *, as_json: bool) -> int:
    cursor = after
    while found := await client.events(job_id, after=cursor, limit=_PAGE):
        for event in found:
            _write(event, as_json=as_json)
        cursor = found[-1].seq
    async for item in client.feed(cursor):
        for event in item.events:
            if event.seq > cursor and (not job_id or event.job_id == job_id):
                _write(event, as_json=as_json)
    return EXIT_OK


def _write(event: Event, *, as_json: bool) -> None:
    import sys

    if as_json:
        write_json(event)
    else:
        write(_line(event))
        sys.stdout.flush()


def _line(event: Event) -> str:
    return f"{event.seq:>6}  {moment(event.at)}  {event.job_id}  {event.actor:<14}  {summary(event)}"


def _csv_row(event: Event) -> list[Any]:
    import json

    data = json.dumps(event.data, ensure_ascii=False)
    return [event.seq, event.at, str(event.type), event.job_id, event.attempt, event.actor, data]


def summary(event: Event) -> str:
    """Return what happened in one line: the type, and the short values that came with it."""
    attempt = f"#{event.attempt} " if event.attempt else ""
    words = [f"{key}={_moment_or(key, value)}" for key, value in event.data.items() if value not in (None, "", [], {})]
    return harmless(shorten(f"{attempt}{event.type}  {' '.join(words)}".rstrip(), _LONGEST).replace("\n", " "))


def _moment_or(key: str, value: Any) -> str:
    return moment(value) if key in _MOMENTS and isinstance(value, (int, float)) else _short(value)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, (dict, list)):
        return "{…}" if isinstance(value, dict) else "[…]"
    return shorten(str(value), 60)

"""`ainfinity logs`: what the trainer and its libraries wrote."""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ainfinity.cli.output import harmless, number, say, write, write_json
from ainfinity.cli.session import on_interrupt, with_client
from ainfinity.core.constants import EXIT_OK
from ainfinity.core.exceptions import UsageError

if TYPE_CHECKING:
    from ainfinity.client.port import Client
    from ainfinity.schema.views import LogChunk


def show_logs(job: str, *, follow: bool, tail: int | None, attempt: int | None, raw: bool, as_json: bool) -> int:
    """Write the log of an attempt, the newest by default; with `follow` until the job is over."""
    if as_json and raw:
        raise UsageError("--json and --raw exclude each other.", hint="JSON holds the lines as they are.")

    async def body(client: Client) -> int:
        detail = await client.get_job(job)
        row = detail.job
        # The id from now on: a new job of the same name must not take over in the middle.
        if follow:
            on_interrupt(f"Stopped watching; the job goes on. Watch it again: `ainfinity logs -f {row.name}`.")
            chunks: Any = client.follow_logs(row.id, attempt=attempt, tail=tail)
            async with aclosing(chunks):
                async for chunk in chunks:
                    _write(chunk, raw=raw, as_json=as_json)
                    sys.stdout.flush()
            return EXIT_OK
        if not detail.attempts:
            say(f"{row.name} is {row.state}: it has no log yet. `--follow` waits for it.")
        return await _all(client, row.id, tail, attempt, raw=raw, as_json=as_json)

    return with_client(body)


async def _all(client: Client, job: str, tail: int | None, attempt: int | None, *, raw: bool, as_json: bool) -> int:
    chunk = await client.logs(job, attempt=attempt, tail=tail)
    number_, lines = chunk.attempt, list(chunk.lines) if as_json else []
    while chunk.lines:
        if not as_json:
            _write(chunk, raw=raw, as_json=False)
        chunk = await client.logs(job, attempt=chunk.attempt, offset=chunk.offset)
        if as_json:
            lines += chunk.lines
    if as_json:
        write_json({"attempt": number_, "lines": lines})
    return EXIT_OK


def _write(chunk: LogChunk, *, raw: bool, as_json: bool) -> None:
    for line in chunk.lines:
        if as_json:
            write_json({"attempt": chunk.attempt, "line": line})
        elif raw:
            write(line)
        else:
            write(harmless(readable(line)))


def readable(line: str) -> str:
    """Return a line of the trainer's protocol as people read it; any other line as it is."""
    from training.protocol import parse_line

    parsed = parse_line(line)
    if parsed is None:
        return line
    return (
        f"[{parsed.kind}] {'  '.join(f'{key} {_value(value)}' for key, value in parsed.data.items() if _told(value))}"
    )


def _told(value: Any) -> bool:
    return value is not None and not isinstance(value, (list, dict))


def _value(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)

"""`ainfinity metrics`: what the trainer reported at each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ainfinity.cli.output import number, say, width, write_csv, write_json, write_table
from ainfinity.cli.session import with_client
from ainfinity.core.constants import EXIT_OK
from ainfinity.core.exceptions import UsageError

if TYPE_CHECKING:
    from ainfinity.client.port import Client
    from ainfinity.schema.views import MetricPoint

#: Steps in a table on a terminal unless asked for more.
_ON_TERMINAL = 40


def show_metrics(job: str, names: Sequence[str], limit: int | None, *, as_json: bool, as_csv: bool) -> int:
    """Write the reported steps of a job, evenly thinned out to `limit`."""
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other.", hint="Give one of them.")
    table = not as_json and not as_csv
    if limit is None and table and width() is not None:
        limit = _ON_TERMINAL

    async def body(client: Client) -> Sequence[MetricPoint]:
        return await client.metrics(job, names=names, limit=limit)

    points = with_client(body)
    columns = list(names) or sorted({name for point in points for name in point.values}, key=_order)
    if as_json:
        write_json(points)
    elif as_csv:
        rows = ([point.attempt, point.step, point.at, *map(point.values.get, columns)] for point in points)
        write_csv(("attempt", "step", "at", *columns), rows)
    elif points:
        cells = [
            (str(point.attempt), str(point.step), *(number(point.values.get(name), ".5g") for name in columns))
            for point in points
        ]
        write_table(("ATTEMPT", "STEP", *(name.upper() for name in columns)), cells, right=range(len(columns) + 2))
    else:
        say("No step was reported yet.")
    return EXIT_OK


def _order(name: str) -> tuple[int, str]:
    first = ("loss", "lr", "grad_norm", "tokens_per_second", "step_seconds")
    return (first.index(name) if name in first else len(first), name)

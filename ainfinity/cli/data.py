"""`ainfinity data`: training data, kept by its content."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ainfinity.cli.output import moment, say, size, write, write_json, write_table
from ainfinity.cli.session import on_interrupt, with_client
from ainfinity.core.constants import EXIT_OK

if TYPE_CHECKING:
    from ainfinity.schema.data import DatasetRow


def add_data(file: Path, name: str, *, as_json: bool) -> int:
    """Keep a file. Errors: DataInvalid, NameTaken, UsageError, FolderUnwritable."""
    on_interrupt("Stopped; the same command goes on where this one ended.")
    row = with_client(lambda client: client.data_add(str(file), name))
    if as_json:
        write_json(row)
        return EXIT_OK
    write(row.name)
    say(f"{row.rows} rows, {size(row.size)}. A job file may say `data: {row.name}`, or data: sha256:{row.sha256}.")
    return EXIT_OK


def list_data(*, as_json: bool) -> int:
    """Write what is kept, newest first."""
    rows = with_client(lambda client: client.data_list())
    if as_json:
        write_json(rows)
    elif rows:
        cells = [(row.name, str(row.rows), size(row.size), moment(row.added_at), row.sha256[:12]) for row in rows]
        write_table(("NAME", "ROWS", "SIZE", "ADDED", "SHA256"), cells, right=(1, 2))
    else:
        say("No data is kept yet. `ainfinity data add FILE` keeps a file; a launch keeps what it trains on.")
    return EXIT_OK


def show_data(name: str, *, as_json: bool) -> int:
    """Write one data set. Errors: NotFound."""
    row, path = with_client(lambda client: client.data_show(name))
    if as_json:
        write_json({"dataset": row, "path": path})
        return EXIT_OK
    for label, value in _pairs(row, path):
        write(f"  {label:<8}{value}")
    return EXIT_OK


def _pairs(row: DatasetRow, path: str) -> list[tuple[str, str]]:
    pairs = [
        ("name", row.name),
        ("sha256", row.sha256),
        ("rows", str(row.rows)),
        ("size", f"{size(row.size)} ({row.size} bytes)"),
        ("added", moment(row.added_at)),
        ("file", path),
    ]
    return [*pairs, *(("copy", place) for place in row.places)]


def remove_data(name: str, *, as_json: bool) -> int:
    """Remove one. Errors: NotFound, WrongState while a live job uses it."""
    row = with_client(lambda client: client.data_remove(name))
    say(f"Removed {row.name} ({size(row.size)}).")
    if as_json:
        write_json(row)
    return EXIT_OK

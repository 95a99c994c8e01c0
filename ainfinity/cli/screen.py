"""`ainfinity` without a command: the terminal UI, whose first frame is read straight from the database."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from ainfinity.core.config import load_settings
from ainfinity.core.constants import EXIT_OK
from ainfinity.core.exceptions import AinfinityError, NotSupported

if TYPE_CHECKING:
    from ainfinity.schema.views import JobRow

#: Rows of the first frame, read before anything else; the rest follows.
_FIRST_ROWS = 200


def open_screen(*, job: str | None = None, read_only: bool = False) -> int:
    """Show the terminal UI, on one job if it is named, until it is left. Errors: NotSupported without a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise NotSupported(
            "The screen needs a terminal, and this is none.",
            hint="`ainfinity list` and `ainfinity wait JOB` work anywhere; `ainfinity --help` shows all commands.",
        )
    from tui.app import run

    settings = load_settings()

    def first_paint() -> list[JobRow]:
        path = settings.sqlite_path
        if settings.server or path is None:
            return []
        from ainfinity.schema.views import JobQuery
        from ainfinity.store.peek import peek_jobs

        try:
            return peek_jobs(path, JobQuery(limit=_FIRST_ROWS))
        except AinfinityError:
            return []  # the client meets it again a moment later, and can act on it

    from ainfinity.client.connect import open_client

    run(partial(open_client, settings), first_paint, job=job, read_only=read_only)
    return EXIT_OK

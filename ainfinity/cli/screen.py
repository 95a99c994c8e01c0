"""`ainfinity` without a command: the terminal UI, whose first frame is read straight from the database."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

from ainfinity.core.config import load_settings
from ainfinity.core.constants import EXIT_OK
from ainfinity.core.exceptions import AinfinityError, NotSupported

if TYPE_CHECKING:
    from ainfinity.client.port import Client
    from ainfinity.schema.views import JobRow

#: Rows of the first frame, read before anything else: as many of the newest, and of the live ones, which come first.
_FIRST_ROWS = 100


def open_screen(*, job: str | None = None, read_only: bool = False) -> int:
    """Show the terminal UI, on one job if it is named, until it is left. Errors: NotSupported without a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise NotSupported(
            "The screen needs a terminal, and this is none.",
            hint="`ainfinity list` and `ainfinity wait JOB` work anywhere; `ainfinity --help` shows all commands.",
        )
    # Making thousands of classes and widgets leaves no garbage, and looking for it takes a tenth of the first frame.
    gc.disable()
    from tui.app import run

    settings = load_settings()

    def first_paint() -> list[JobRow]:
        path = settings.sqlite_path
        if settings.server or path is None:
            return []
        from ainfinity.schema.states import JOB_LIVE
        from ainfinity.schema.views import JobQuery
        from ainfinity.store.peek import peek_jobs

        try:
            newest = peek_jobs(path, JobQuery(limit=_FIRST_ROWS))
            live = peek_jobs(path, JobQuery(states=tuple(JOB_LIVE), limit=_FIRST_ROWS))
            return list({row.id: row for row in (*live, *newest)}.values())
        except AinfinityError:
            return []  # the client meets it again a moment later, and can act on it

    async def open_after_first_frame() -> Client:
        gc.freeze()
        gc.enable()
        from ainfinity.client.connect import open_client

        return await open_client(settings)

    run(open_after_first_frame, first_paint, job=job, read_only=read_only)
    return EXIT_OK

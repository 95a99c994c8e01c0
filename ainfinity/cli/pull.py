"""`ainfinity pull`: bring what a job made to a folder, from wherever it is."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from ainfinity.cli.output import say, size, write, write_json
from ainfinity.cli.session import on_interrupt, with_client
from ainfinity.core.constants import EXIT_NOT_FINISHED, EXIT_OK
from ainfinity.core.exceptions import NotFound
from ainfinity.schema.states import JOB_LIVE

if TYPE_CHECKING:
    from ainfinity.client.port import Client


#: Seconds between two lines about the same transfer: rewritten ones on a terminal, new ones elsewhere.
_OFTEN: Final = 0.1
_SELDOM: Final = 10.0


class TransferLine:
    """How far a transfer is, on stderr."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._began = self._last = time.monotonic()
        self._before: int | None = None
        self._shown = False

    def show(self, came: int, total: int) -> None:
        """Tell of so many bytes of all; those of an earlier try do not count for the speed."""
        now = time.monotonic()
        if self._before is None:
            self._before = came
        if now - self._last < (_OFTEN if self._terminal else _SELDOM):
            return
        self._last = now
        speed = (came - self._before) / (now - self._began)
        text = f"{size(came)} of {size(total)} ({100 * came // max(total, 1)} %), {size(speed)}/s"
        if self._terminal:
            self._stream.write(f"\r{text}\x1b[K")
            self._stream.flush()
            self._shown = True
        else:
            say(text)

    def close(self) -> None:
        """Leave an empty line for what comes next."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def pull_job(job: str, what: str, to: Path | None, *, as_json: bool) -> int:
    """Bring `adapter`, `model`, `merged`, `checkpoint[:STEP]` or `logs`; without `what` the adapter or the model."""

    async def body(client: Client) -> int:
        row = (await client.get_job(job)).job
        kinds = {artifact.kind for artifact in await client.artifacts(row.id)}
        wanted = what or ("model" if "model" in kinds and "adapter" not in kinds else "adapter")
        if wanted in ("adapter", "model", "merged") and not kinds & {"adapter", "model"} and row.state in JOB_LIVE:
            say(f"{row.name} is {row.state}: its {wanted} is not there yet. Wait for it: `ainfinity wait {row.name}`.")
            return EXIT_NOT_FINISHED
        folder = (to or Path(row.name)).absolute()
        on_interrupt(f"Stopped; what was copied completely stays in {folder}. The same command goes on.")
        line = TransferLine(sys.stderr)
        try:
            paths = await client.pull(row.id, wanted, str(folder), progress=line.show)
        finally:
            line.close()
        if not paths:
            raise NotFound(f"The {wanted} of {row.name} holds no file.", hint=f"`ainfinity show {row.name}` lists all.")
        if as_json:
            write_json({"job": row.id, "what": wanted, "paths": paths})
        else:
            for path in paths:
                write(path)
            say(f"{len(paths)} files in {folder}")
        return EXIT_OK

    return with_client(body)

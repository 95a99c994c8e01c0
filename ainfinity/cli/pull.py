"""`ainfinity pull`: copy what a job made to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ainfinity.cli.output import say, write, write_json
from ainfinity.cli.session import on_interrupt, with_client
from ainfinity.core.constants import EXIT_NOT_FINISHED, EXIT_OK
from ainfinity.core.exceptions import NotFound
from ainfinity.schema.states import JOB_LIVE

if TYPE_CHECKING:
    from ainfinity.client.port import Client


def pull_job(job: str, what: str, to: Path | None, *, as_json: bool) -> int:
    """Copy `adapter`, `model`, `checkpoint[:STEP]` or `logs`; without `what` the adapter, or else the model."""

    async def body(client: Client) -> int:
        row = (await client.get_job(job)).job
        kinds = {artifact.kind for artifact in await client.artifacts(row.id)}
        wanted = what or ("model" if "model" in kinds and "adapter" not in kinds else "adapter")
        if wanted in ("adapter", "model") and wanted not in kinds and row.state in JOB_LIVE:
            say(f"{row.name} is {row.state}: its {wanted} is not there yet. Wait for it: `ainfinity wait {row.name}`.")
            return EXIT_NOT_FINISHED
        folder = (to or Path(row.name)).absolute()
        on_interrupt(f"Stopped; what was copied completely stays in {folder}. The same command goes on.")
        paths = await client.pull(row.id, wanted, str(folder))
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

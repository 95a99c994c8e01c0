"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from ainfinity.cli.complete import complete_jobs

Job = Annotated[
    str, typer.Argument(metavar="JOB", help="Name, id, or the beginning of one.", autocompletion=complete_jobs)
]
Jobs = Annotated[list[str], typer.Argument(metavar="JOB...", help="Names or ids.", autocompletion=complete_jobs)]
Changes = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change: lr=1e-4.")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON.")]
Csv = Annotated[bool, typer.Option("--csv", help="Write CSV.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

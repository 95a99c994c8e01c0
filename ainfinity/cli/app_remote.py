"""The commands about machines elsewhere and the data that goes there, and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ainfinity.cli.complete import complete_datasets, complete_orphans
from ainfinity.cli.options import Job, Json, Yes

data_app = typer.Typer(help="Keep training data by its content, for jobs anywhere.", rich_markup_mode=None)
sky_app = typer.Typer(help="SkyPilot's API server, through which jobs reach machines elsewhere.", rich_markup_mode=None)

Refresh = Annotated[bool, typer.Option("--refresh", help="Ask anew, whatever is known.")]
Dataset = Annotated[
    str, typer.Argument(metavar="NAME", help="Name, or the hash or its beginning.", autocompletion=complete_datasets)
]
Time = Annotated[str, typer.Argument(metavar="TIME", help="For example 30m, 2h or 1d.")]


def add_commands(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (gpus, orphans, extend, keep, teardown, ssh, adopt):
        app.command()(command)
    # Whatever stands after JOB belongs to the command that is run there, options too.
    app.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(exec_)
    app.add_typer(data_app, name="data")
    app.add_typer(sky_app, name="sky")


def gpus(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Only this one: H100, or H100:8.")] = "",
    infra: Annotated[str, typer.Option("--infra", help="Only there: slurm, k8s, aws/us-east-1.")] = "",
    refresh: Refresh = False,
    as_json: Json = False,
) -> int:
    """List accelerators that can be had: where, at what price, and how many are free now."""
    from ainfinity.cli.gpus import list_gpus

    return list_gpus(name, infra, refresh=refresh, as_json=as_json)


def orphans(
    answer: Annotated[str, typer.Argument(metavar="[keep|remove]", help="What to do with one.")] = "",
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Which one.", autocompletion=complete_orphans)] = "",
    refresh: Refresh = False,
    as_json: Json = False,
) -> int:
    """List machines of this installation that no live job owns, and what they cost; keep or remove one."""
    from ainfinity.cli.orphans import answer_orphan, list_orphans

    if answer:
        return answer_orphan(answer, name, as_json=as_json)
    return list_orphans(refresh=refresh, as_json=as_json)


def extend(
    job: Job,
    by: Annotated[str, typer.Argument(metavar="+TIME", help="How much longer it may run: +2h.")],
    as_json: Json = False,
) -> int:
    """Move the deadline of a running job, on its machine too."""
    from ainfinity.cli.machine import extend_job

    return extend_job(job, by, as_json=as_json)


def keep(job: Job, time: Time, as_json: Json = False) -> int:
    """Keep the machine of a job for so long after it ends, to look at it. It costs money until then."""
    from ainfinity.cli.machine import keep_job

    return keep_job(job, time, as_json=as_json)


def teardown(job: Job, yes: Yes = False, as_json: Json = False) -> int:
    """End the machine of a job now, kept or not."""
    from ainfinity.cli.machine import teardown_job

    return teardown_job(job, yes=yes, as_json=as_json)


def ssh(
    job: Job,
    node: Annotated[int, typer.Option("--node", min=0, help="Which node; 0 is the head.")] = 0,
) -> int:
    """Open a shell on a job's machine. In a pipe, what comes on stdin is run there."""
    from ainfinity.cli.machine import open_shell

    return open_shell(job, (), node)


def exec_(
    job: Job,
    command: Annotated[list[str], typer.Argument(metavar="-- CMD...", help="The command and its arguments.")],
) -> int:
    """Run a command on a job's machine, and exit as it does."""
    from ainfinity.cli.machine import open_shell

    return open_shell(job, [word for index, word in enumerate(command) if index or word != "--"], 0)


def adopt(
    managed: Annotated[str, typer.Option("--managed", metavar="ID", help="A managed job, by its number.")] = "",
    cluster: Annotated[str, typer.Option("--cluster", metavar="NAME", help="A cluster.")] = "",
    list_: Annotated[bool, typer.Option("--list", help="Show what can be adopted.")] = False,
    claim: Annotated[bool, typer.Option("--claim", help="Allow to end it from here, too.")] = False,
    refresh: Refresh = False,
    as_json: Json = False,
) -> int:
    """Show what was started with plain `sky` among the jobs here: state, log and cost."""
    from ainfinity.cli.adopt import adopt_one, list_adoptable

    if list_ or not (managed or cluster):
        return list_adoptable(refresh=refresh, as_json=as_json)
    return adopt_one(managed, cluster, claim=claim, as_json=as_json)


@data_app.command("add")
def data_add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Chat JSONL file.")],
    name: Annotated[str, typer.Option("--name", help="By default the file's.")] = "",
    as_json: Json = False,
) -> int:
    """Keep a file by its content. Job files may then say `data: NAME`."""
    from ainfinity.cli.data import add_data

    return add_data(file, name, as_json=as_json)


@data_app.command("list")
def data_list(as_json: Json = False) -> int:
    """List the data that is kept, newest first."""
    from ainfinity.cli.data import list_data

    return list_data(as_json=as_json)


@data_app.command("show")
def data_show(name: Dataset, as_json: Json = False) -> int:
    """Show one, and where its file lies."""
    from ainfinity.cli.data import show_data

    return show_data(name, as_json=as_json)


@data_app.command("rm")
def data_rm(name: Dataset, as_json: Json = False) -> int:
    """Remove one. Refused while a live job uses it."""
    from ainfinity.cli.data import remove_data

    return remove_data(name, as_json=as_json)


@sky_app.command("status")
def sky_status(as_json: Json = False) -> int:
    """Tell whether the API server answers, and which one it is."""
    from ainfinity.cli.sky import show_sky

    return show_sky(as_json=as_json)


@sky_app.command("start")
def sky_start(yes: Yes = False, as_json: Json = False) -> int:
    """Start the API server of this machine, if none answers."""
    from ainfinity.cli.sky import start_sky

    return start_sky(yes=yes, as_json=as_json)

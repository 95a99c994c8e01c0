"""The commands and their options. What they do is imported when one of them runs, to keep `--help` quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ainfinity.cli import app_remote
from ainfinity.cli.complete import complete_jobs, complete_launch, complete_recipes, complete_secrets, complete_states
from ainfinity.cli.options import Changes, Csv, Job, Jobs, Json, Yes

app = typer.Typer(
    name="ainfinity",
    help="Fine-tune language models. Without a command: the terminal UI.",
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
secrets_app = typer.Typer(help="Keep tokens and keys; jobs hold only their names.", rich_markup_mode=None)
worker_app = typer.Typer(
    help="The process that carries jobs out; it is started by itself when needed.", rich_markup_mode=None
)
app.add_typer(secrets_app, name="secrets")
app.add_typer(worker_app, name="worker")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"ainfinity {version('ainfinity')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="Open the terminal UI for looking only.")] = False,
) -> int:
    """Fine-tune language models. Without a command: the terminal UI."""
    if context.invoked_subcommand is None:
        from ainfinity.cli.screen import open_screen

        return open_screen(read_only=read_only)
    return 0


@app.command()
def new(
    model: Annotated[str, typer.Option("--model", "-m", help="Folder with the model, or its name on the hub.")],
    data: Annotated[Path, typer.Option("--data", "-d", help="Chat JSONL file to train on.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; stdout without it.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: Json = False,
) -> int:
    """Look at the data and write a commented job file."""
    from ainfinity.cli.new import new_job

    return new_job(model, data, output, force=force, as_json=as_json)


@app.command()
def launch(
    target: Annotated[
        str,
        typer.Argument(
            metavar="FILE|RECIPE",
            help="Job, recipe or SkyPilot task file, `-` for stdin, or a ready recipe.",
            autocompletion=complete_launch,
        ),
    ],
    changes: Changes = None,
    infra: Annotated[str, typer.Option("--infra", help="Where: local, slurm/CLUSTER, k8s, aws/us-east-1.")] = "",
    gpus: Annotated[str, typer.Option("--gpus", help="Accelerators a node: H100:8.")] = "",
    nodes: Annotated[int | None, typer.Option("--nodes", min=1, help="Number of nodes.")] = None,
    storage: Annotated[str, typer.Option("--storage", help="Shared folder or bucket for checkpoints and model.")] = "",
    mode: Annotated[str, typer.Option("--mode", help="auto, cluster or managed.")] = "",
    spot: Annotated[bool, typer.Option("--spot", help="A preemptible machine will do.")] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Show progress until the job is over.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show spec, plan and task; launch nothing.")] = False,
    yes: Yes = False,
    key: Annotated[str, typer.Option("--key", help="The same key twice is one job; for scripts that may repeat.")] = "",
    as_json: Json = False,
) -> int:
    """Plan a job, and launch it."""
    from ainfinity.cli.launch import launch_job

    wished = {
        "infra": infra,
        "gpus": gpus,
        "nodes": nodes,
        "storage": storage,
        "mode": mode,
        "spot": "true" if spot else "",
    }
    options = [f"resources.{name}={value}" for name, value in wished.items() if value not in ("", None)]
    return launch_job(
        target, [*options, *(changes or [])], wait=wait, dry_run=dry_run, yes=yes, key=key, as_json=as_json
    )


@app.command("list")
def list_(
    text: Annotated[str, typer.Argument(metavar="[TEXT]", help="Part of a name, model, note or tag.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many.")] = 50,
    everything: Annotated[bool, typer.Option("--all", "-a", help="No limit.")] = False,
    state: Annotated[
        list[str] | None,
        typer.Option("--state", "-s", help="Only this state, or `live`; repeatable.", autocompletion=complete_states),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", "-t", help="Only with this tag; repeatable.")] = None,
    owner: Annotated[str, typer.Option("--owner", help="Only of this owner.")] = "",
    as_json: Json = False,
    as_csv: Csv = False,
) -> int:
    """List jobs, newest first."""
    from ainfinity.cli.list import list_jobs

    bound = None if everything else limit
    return list_jobs(text, bound, state or [], tag or [], owner, as_json=as_json, as_csv=as_csv)


@app.command()
def show(
    job: Job,
    reproduce: Annotated[
        bool, typer.Option("--reproduce", help="Write the commands that train the same again.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Show everything about a job."""
    from ainfinity.cli.show import show_job

    return show_job(job, reproduce=reproduce, as_json=as_json)


@app.command()
def logs(
    job: Job,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is over.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", min=0, help="Only the last lines.")] = None,
    attempt: Annotated[int | None, typer.Option("--attempt", min=1, help="By default the newest.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="The trainer's own lines as they are.")] = False,
    as_json: Json = False,
) -> int:
    """Show a job's log."""
    from ainfinity.cli.logs import show_logs

    return show_logs(job, follow=follow, tail=tail, attempt=attempt, raw=raw, as_json=as_json)


@app.command()
def metrics(
    job: Job,
    names: Annotated[list[str] | None, typer.Option("--name", help="Only this metric; repeatable.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=2, help="At most so many steps, evenly spaced.")
    ] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> int:
    """Show what the trainer reported at each step."""
    from ainfinity.cli.metrics import show_metrics

    return show_metrics(job, names or [], limit, as_json=as_json, as_csv=as_csv)


@app.command()
def events(
    job: Annotated[
        str, typer.Argument(metavar="[JOB]", help="All jobs without it.", autocompletion=complete_jobs)
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens.")] = False,
    after: Annotated[int, typer.Option("--after", min=0, help="Only events with a higher number.")] = 0,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, without --follow.")] = 1000,
    as_json: Json = False,
    as_csv: Csv = False,
) -> int:
    """Show what happened, in order."""
    from ainfinity.cli.events import show_events

    return show_events(job, follow=follow, after=after, limit=limit, as_json=as_json, as_csv=as_csv)


@app.command()
def approve(
    job: Job,
    plan: Annotated[str, typer.Option("--plan", help="Approve only if the plan has this hash.")] = "",
    as_json: Json = False,
) -> int:
    """Approve the plan of a job that waits for it."""
    from ainfinity.cli.change import approve_job

    return approve_job(job, plan, as_json=as_json)


@app.command()
def reject(
    job: Job,
    reason: Annotated[str, typer.Option("--reason", help="Why; the owner reads it.")] = "",
    as_json: Json = False,
) -> int:
    """Reject a job that waits for approval."""
    from ainfinity.cli.change import reject_job

    return reject_job(job, reason, as_json=as_json)


@app.command()
def cancel(jobs: Jobs, as_json: Json = False) -> int:
    """End jobs. A running one saves a checkpoint first."""
    from ainfinity.cli.change import cancel_jobs

    return cancel_jobs(jobs, as_json=as_json)


@app.command()
def retry(
    job: Job,
    changes: Changes = None,
    step: Annotated[int | None, typer.Option("--from", min=0, help="The checkpoint to go on from.")] = None,
    as_json: Json = False,
) -> int:
    """Run a finished job again, from its newest checkpoint; with changes as a new job from the start."""
    from ainfinity.cli.change import retry_job

    return retry_job(job, changes or [], step, as_json=as_json)


@app.command()
def delete(jobs: Jobs, yes: Yes = False, as_json: Json = False) -> int:
    """Remove the records of jobs that are over. Their files stay."""
    from ainfinity.cli.change import delete_jobs

    return delete_jobs(jobs, yes=yes, as_json=as_json)


@app.command()
def wait(
    job: Job,
    timeout: Annotated[float | None, typer.Option("--timeout", min=0, help="Seconds to wait at most.")] = None,
    as_json: Json = False,
) -> int:
    """Show progress until a job is over. Exits 0, 100 if it failed, 101 if it is not over, 103 if it was cancelled."""
    from ainfinity.cli.wait import wait_for_job

    return wait_for_job(job, timeout, as_json=as_json)


@app.command()
def pull(
    job: Job,
    what: Annotated[
        str, typer.Argument(metavar="[WHAT]", help="adapter, model, merged, checkpoint[:STEP] or logs.")
    ] = "",
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="By default one of the job's name.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="The same as DIR.")] = None,
    as_json: Json = False,
) -> int:
    """Bring what a job made to a folder here, checked, wherever it ran. A second time goes on with the rest."""
    from ainfinity.cli.pull import pull_job

    return pull_job(job, what, folder or to, as_json=as_json)


@app.command()
def recipes(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="Write this one.", autocompletion=complete_recipes)
    ] = "",
    as_json: Json = False,
) -> int:
    """List the ready recipes, or write one."""
    from ainfinity.cli.recipes import show_recipes

    return show_recipes(name, as_json=as_json)


@app.command()
def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Put right what can be put right safely.")] = False,
    as_json: Json = False,
) -> int:
    """Check this machine and installation, and say what to do."""
    from ainfinity.cli.doctor import run_doctor

    return run_doctor(fix=fix, as_json=as_json)


@app.command()
def completion(
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="Your shell.")],
) -> int:
    """Write the script that completes commands, options and job names in your shell."""
    from ainfinity.cli.complete import write_script

    return write_script(shell)


@app.command()
def schema(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Which one; all their names without it.")] = "",
) -> int:
    """Write the JSON Schema of a command's --json output, or of job files."""
    from ainfinity.cli.json_models import write_schema

    return write_schema(name)


@secrets_app.command("set")
def secrets_set(name: Annotated[str, typer.Argument(metavar="NAME", help="For example HF_TOKEN.")]) -> int:
    """Store a secret. Its value is read from stdin or asked for, never taken from the command line."""
    from ainfinity.cli.secrets import set_secret

    return set_secret(name)


@secrets_app.command("list")
def secrets_list(as_json: Json = False) -> int:
    """List the names of stored secrets."""
    from ainfinity.cli.secrets import list_secrets

    return list_secrets(as_json=as_json)


@secrets_app.command("rm")
def secrets_rm(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which one.", autocompletion=complete_secrets)],
) -> int:
    """Forget a secret."""
    from ainfinity.cli.secrets import remove_secret

    return remove_secret(name)


@worker_app.command("run")
def worker_run(
    until_idle: Annotated[bool, typer.Option("--until-idle", help="End when no job is live.")] = False,
) -> int:
    """Carry jobs out in this terminal, until Ctrl-C."""
    from ainfinity.cli.worker import run_worker

    return run_worker(until_idle=until_idle)


@worker_app.command("start")
def worker_start(as_json: Json = False) -> int:
    """Start a worker in the background, if none is alive."""
    from ainfinity.cli.worker import start_worker

    return start_worker(as_json=as_json)


@worker_app.command("stop")
def worker_stop(as_json: Json = False) -> int:
    """End this machine's worker. Jobs go on; the next front starts another."""
    from ainfinity.cli.worker import stop_worker

    return stop_worker(as_json=as_json)


@worker_app.command("status")
def worker_status(as_json: Json = False) -> int:
    """Tell whether a worker is alive."""
    from ainfinity.cli.worker import show_status

    return show_status(as_json=as_json)


@worker_app.command("install")
def worker_install() -> int:
    """Write a user service (systemd or launchd) that keeps a worker running, and say how to enable it."""
    from ainfinity.cli.worker import install_worker

    return install_worker()


app_remote.add_commands(app)

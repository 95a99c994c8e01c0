"""`ainfinity launch`: read, plan, ask, submit, and on demand wait."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ainfinity.cli.output import duration, harmless, interactive, number, say, write, write_json
from ainfinity.cli.session import learn_secrets, on_interrupt, with_client
from ainfinity.core.constants import EXIT_OK, EXIT_REFUSED
from ainfinity.core.exceptions import ApprovalNeeded, NotAllowed, NotSupported
from ainfinity.schema.states import JobState

if TYPE_CHECKING:
    from ainfinity.client.port import Client
    from ainfinity.schema.training_job import JobSpec
    from ainfinity.schema.views import JobRow, PlanView
    from training.recipe import Recipe


def launch_job(
    target: str, changes: Sequence[str], *, wait: bool, dry_run: bool, yes: bool, key: str, as_json: bool
) -> int:
    """Launch what `target` names, changed by `changes`; return the exit code."""
    from ainfinity.schema.job_file import load

    learn_secrets()
    on_interrupt("Nothing was launched.")
    spec = load(target, changes)
    if dry_run:
        return with_client(lambda client: _show_plan_only(client, spec, as_json=as_json))
    return with_client(lambda client: _launch(client, spec, wait=wait, yes=yes, key=key, as_json=as_json))


async def _show_plan_only(client: Client, spec: JobSpec, *, as_json: bool) -> int:
    view: PlanView | None = None
    refusal: NotSupported | None = None
    try:
        view = await client.plan(spec)
    except NotSupported as error:  # the task can still be shown where it cannot be launched from here
        refusal = error
        if spec.resources.infra == "local":
            raise
    task = None if spec.resources.infra == "local" else _render(spec)
    if as_json:
        write_json({"spec": spec.as_json(), "plan": view, "task": task, "refused": refusal and refusal.as_dict()})
        return EXIT_OK
    write("# The job as it would be launched, every default written out")
    write(_yaml({"job": spec.as_json()}))
    if view is not None:
        write("# The plan")
        write(_yaml({"plan": {"plan_hash": view.plan_hash, **view.plan, "findings": list(view.findings)}}))
    if task is not None:
        write("# The SkyPilot task")
        write(_yaml({"task": task}))
    if refusal is not None:
        say(f"{refusal.message} {refusal.hint}".strip())
    return EXIT_OK


def _yaml(value: Mapping[str, Any]) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes scripts as blocks, so that they can be read."""

    def text(dumper: Any, value: str) -> Any:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000).rstrip()


def _render(spec: JobSpec) -> dict[str, Any]:
    from skylaunch.render import Launch, render_task

    example = f"ain-00000000-{spec.name}"[:28].rstrip("-")
    return render_task(spec, Launch(attempt=example, job_id="example"))


async def _launch(client: Client, spec: JobSpec, *, wait: bool, yes: bool, key: str, as_json: bool) -> int:
    view = await client.plan(spec)  # which refuses what no API server would help
    if spec.resources.infra != "local":
        from ainfinity.cli.sky import need_sky

        await need_sky(client, yes=yes)
    describe_plan(spec, view)
    agreed = yes or _confirm(spec, view)
    if not agreed and _costs(view):
        say("Nothing was launched.")
        return EXIT_REFUSED
    key = key or str(uuid.uuid4())
    on_interrupt(
        f"The job may have been launched: see `ainfinity list`. Launching again with --key {key} makes no second one."
    )
    row = await client.submit(spec, key, plan_hash=view.plan_hash)
    on_interrupt(detached(row.name))
    if row.state == JobState.AWAITING_APPROVAL and agreed:
        row = await _approve(client, row, view.plan_hash)
    await client.ensure_worker()
    if row.state == JobState.AWAITING_APPROVAL:
        say(f"{row.name} ({row.id}) waits for approval: `ainfinity approve {row.name}`.")
    else:
        say(f"Launched {row.name} ({row.id}).")
    if wait:
        from ainfinity.cli.wait import follow_to_end

        return await follow_to_end(client, row, as_json=as_json)
    if as_json:
        write_json(row)
    else:
        write(row.id)
        say(f"Watch it: `ainfinity wait {row.name}`, or `ainfinity` for the screen.")
    return EXIT_OK


async def _approve(client: Client, row: JobRow, plan_hash: str) -> JobRow:
    try:
        return await client.approve(row.id, plan_hash)
    except NotAllowed as error:  # it stays in the queue of those who may
        say(error.message)
        return row


def detached(name: str) -> str:
    """Return what to say when someone stops watching a job."""
    return (
        f"Stopped watching; the job goes on. Watch again: `ainfinity wait {name}`. End it: `ainfinity cancel {name}`."
    )


def _costs(view: PlanView) -> bool:
    """Whether the launch spends money, as far as is known."""
    return view.plan.get("candidate", {}).get("price_per_hour") != 0


def _confirm(spec: JobSpec, view: PlanView) -> bool:
    """Ask where someone must agree. Errors: ApprovalNeeded when it costs money and no one is there."""
    if not _costs(view) and not view.needs_approval:
        return False
    if not interactive():
        if not _costs(view):
            return False  # it waits for its approver
        raise ApprovalNeeded(
            f"{spec.name} would run on {spec.resources.infra}, which costs money, and no one is here to ask.",
            hint="Pass --yes to accept the plan shown.",
        )
    sys.stderr.write("Launch it? [y/N] " if _costs(view) else "Approve it as well? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def describe_plan(spec: JobSpec, view: PlanView) -> None:
    """Tell what is about to be launched."""
    candidate: Mapping[str, Any] = view.plan.get("candidate", {})
    resources = spec.resources
    price = candidate.get("price_per_hour")
    cost = "free" if price == 0 else "price unknown" if price is None else f"${number(price)} an hour"
    where = [resources.infra, *([f"{resources.nodes} nodes"] if resources.nodes > 1 else [])]
    if spec.recipe is not None:
        machine = "CPU or this machine’s GPUs" if resources.infra == "local" else "CPU"
        where += [resources.gpus or machine, f"{resources.ranks} rank(s) a node"]
    elif resources.gpus:
        where.append(resources.gpus)
    say(f"Plan {view.plan_hash} for {spec.name}")
    if spec.recipe is not None:
        _describe_recipe(spec.recipe, view)
    say(f"  where  {', '.join(where)}; {cost}")
    if spec.policy.max_duration:
        say(f"  limit  {duration(spec.policy.max_duration)}")
    for finding in view.findings:
        say(f"  note   {harmless(finding)}")


def _describe_recipe(recipe: Recipe, view: PlanView) -> None:
    how = f"LoRA r={recipe.lora.r}" if recipe.lora else "all weights"
    steps = view.plan.get("steps")
    length = f"{steps} steps" if steps else f"{number(recipe.epochs)} epochs"
    say(f"  model  {harmless(recipe.model)} ({how}, {recipe.precision}, ZeRO {recipe.zero_stage})")
    say(f"  data   {harmless(recipe.data)}, {view.plan.get('data_rows') or '?'} rows, trained on: {recipe.train_on}")
    say(f"  steps  {length}, lr {number(recipe.lr)}")

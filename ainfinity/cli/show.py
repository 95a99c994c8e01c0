"""`ainfinity show`: everything about one job on one page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ainfinity.cli.list import state_text
from ainfinity.cli.output import (
    STATE_COLOURS,
    colour,
    cost_so_far,
    duration,
    harmless,
    moment,
    money,
    number,
    per_hour,
    write,
    write_json,
)
from ainfinity.cli.session import with_client
from ainfinity.cli.wait import held_out_losses
from ainfinity.core.constants import EXIT_OK
from ainfinity.schema.states import JOB_LIVE

if TYPE_CHECKING:
    from ainfinity.schema.views import ArtifactRow, AttemptRow, JobDetail, JobRow


def show_job(job: str, *, reproduce: bool, as_json: bool) -> int:
    """Write a job's page, or with `reproduce` the commands that train the same again."""
    detail = with_client(lambda client: client.get_job(job))
    if reproduce:
        script = "\n".join(reproduction(detail))
        if as_json:
            write_json({"job": detail.job.id, "script": script})
        else:
            write(script)
    elif as_json:
        write_json(detail)
    else:
        for line in page(detail):
            write(line)
    return EXIT_OK


def page(detail: JobDetail) -> Iterator[str]:
    """Yield the lines of a job's page."""
    row = detail.job
    yield f"{colour(row.name, 'bold')}  {colour(state_text(row), STATE_COLOURS.get(row.state, ''))}  {row.id}"
    if row.error_code or row.error_message:
        yield _pair("error", harmless(f"{row.error_code}: {row.error_message}"))
    yield from _marks(row)
    progress = row.progress
    if progress.total_steps:
        rest = f", {duration(progress.eta_seconds)} left" if progress.eta_seconds and not row.finished_at else ""
        yield _pair("step", f"{progress.step}/{progress.total_steps}{rest}")
    if progress.loss is not None:
        yield _pair("loss", number(progress.loss))
    if losses := held_out_losses(detail):
        yield _pair("held-out loss", losses)
    yield from _sources(detail)
    yield _pair("submitted", f"{moment(row.submitted_at)} by {row.owner}")
    if row.started_at:
        yield _pair("started", moment(row.started_at))
    if row.finished_at:
        took = f" after {duration(row.finished_at - row.started_at)}" if row.started_at else ""
        yield _pair("finished", f"{moment(row.finished_at)}{took}")
    yield from _money(detail)
    for attempt in detail.attempts:
        yield _pair(f"attempt {attempt.number}", _attempt(attempt))
        yield from _machine(attempt)
    for artifact in detail.artifacts:
        if artifact.kind != "file":
            yield _pair(artifact.kind, _artifact(artifact))


def _marks(row: JobRow) -> Iterator[str]:
    """Yield what a person should know of a job beside its state."""
    if row.stale_since is not None:
        yield _pair("no contact", f"since {moment(row.stale_since)}; the state is the last one known")
    if row.stuck_since is not None:
        yield _pair("stuck", f"no sign of life since {moment(row.stuck_since)}, though there is contact")
    if row.kept_until is not None:
        price = per_hour(row.price_per_hour)
        text = f"its attempt ended; its machine stays until {moment(row.kept_until)}, at {price}"
        yield _pair("kept", f"{text}; end it: `ainfinity teardown {row.name}`")
    if row.origin:
        claimed = "claimed" if row.claimed else "shown only, until `ainfinity adopt … --claim`"
        yield _pair("origin", f"plain SkyPilot, {harmless(row.origin)}; {claimed}")


def _money(detail: JobDetail) -> Iterator[str]:
    row = detail.job
    live = row.state in JOB_LIVE
    spent = cost_so_far(row.cost, row.price_per_hour)
    if not detail.attempts:
        return
    text = {"-": "nothing yet" if live else "nothing"}.get(spent, f"{spent} so far" if live else spent)
    if live and spent != "free":
        price = "price unknown" if row.price_per_hour is None else f"at {per_hour(row.price_per_hour)}"
        text = f"{text}, {price}"
    yield _pair("cost", spent if spent == "free" else text)
    if detail.goodput is not None:
        yield _pair("goodput", f"{detail.goodput:.0%} of the paid time went into steps that count")


def _machine(attempt: AttemptRow) -> Iterator[str]:
    """Yield the second line of an attempt: its machine, and what that costs. One of this computer has none."""
    parts = [harmless(attempt.given)] if attempt.given else []
    if attempt.paid_from is not None and attempt.backend != "local":
        parts += [per_hour(attempt.price_per_hour), f"cost {money(attempt.cost)}"]
    if attempt.recoveries:
        parts.append(f"moved {attempt.recoveries} time{'s' if attempt.recoveries > 1 else ''} by SkyPilot")
    if attempt.deadline is not None and attempt.finished_at is None:
        parts.append(f"deadline {moment(attempt.deadline)}")
    if attempt.keep_until and attempt.finished_at is None:
        why = f" ({harmless(attempt.keep_reason)})" if attempt.keep_reason else ""
        parts.append(f"kept until {moment(attempt.keep_until)}{why}")
    if parts:
        yield _pair("", "  ".join(parts))


def _sources(detail: JobDetail) -> Iterator[str]:
    row = detail.job
    recipe: Mapping[str, Any] = detail.spec.get("recipe") or {}
    if recipe:
        yield _pair("model", harmless(row.model))
        yield _pair("data", harmless(str(recipe.get("data", ""))))
    resources: Mapping[str, Any] = detail.spec.get("resources") or {}
    nodes = f"{resources['nodes']} nodes, " if resources.get("nodes", 1) > 1 else ""
    yield _pair("where", f"{nodes}{row.infra} {row.gpus}".strip())
    if resources.get("storage"):
        yield _pair("storage", str(resources["storage"]))
    if detail.spec.get("recipe_name"):
        yield _pair("recipe", str(detail.spec["recipe_name"]))
    if detail.plan_hash:
        yield _pair("plan", detail.plan_hash)
    if row.tags:
        yield _pair("tags", " ".join(row.tags))
    if row.note:
        yield _pair("note", harmless(row.note).replace("\n", "\n" + " " * 16))


def _pair(name: str, value: str) -> str:
    return f"  {name:<14}{value}"


def _attempt(attempt: AttemptRow) -> str:
    parts = [attempt.state, attempt.name]
    if attempt.resume_step is not None:
        parts.append(f"from step {attempt.resume_step}")
    if attempt.exit_code is not None:
        parts.append(f"exit code {attempt.exit_code}")
    if attempt.reason:
        parts.append(harmless(attempt.reason))
    return "  ".join(parts)


def _artifact(artifact: ArtifactRow) -> str:
    step = f" (step {artifact.step})" if artifact.step is not None else ""
    return f"{artifact.path}{step}"


def reproduction(detail: JobDetail) -> Iterator[str]:
    """Yield the lines of a shell script that trains the same again, with what it should find as comments."""
    spec: dict[str, Any] = {key: value for key, value in detail.spec.items() if key != "recipe_name"}
    attempt = detail.attempts[-1] if detail.attempts else None
    yield f"# {detail.job.name} ({detail.job.id})" + (f", attempt {attempt.number}" if attempt else "")
    source = detail.provenance
    if source.get("data_sha256"):
        yield f"# data: sha256 {source['data_sha256']}"
    for name, value in _facts(attempt.provenance if attempt else {}):
        yield f"# {name}: {value}"
    if source.get("commit"):
        yield f"git checkout {source['commit']}"
    if source.get("diff"):
        end = f"AINFINITY_{source.get('diff_sha256', 'DIFF')}"  # no line of the diff can hold its own hash
        yield from (f"git apply <<'{end}'", str(source["diff"]).rstrip("\n"), end)
    elif source.get("dirty"):
        yield f"# with uncommitted changes too large to keep (sha256 {source.get('diff_sha256')})"
    # The terminator stands in no line of JSON, and a quoted one keeps the shell from reading what is between.
    yield "ainfinity launch - <<'AINFINITY_JOB'"
    yield json.dumps(spec, indent=1, ensure_ascii=False)
    yield "AINFINITY_JOB"


def _facts(provenance: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in provenance.items():
        if isinstance(value, Mapping):
            yield from _facts(value, f"{prefix}{key}.")  # pyright: ignore[reportUnknownArgumentType]
        elif value not in (None, "", []):
            yield f"{prefix}{key}", harmless(str(value)).replace("\n", " ")

"""Plans: what a job would do, cost and read, hashed so that an approval can bind to it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from math import ceil

from ainfinity.core.config import Settings
from ainfinity.core.exceptions import NotSupported
from ainfinity.domain.cost import HOUR
from ainfinity.domain.limits import Limits, time_limit
from ainfinity.domain.places import backend_of
from ainfinity.schema.plan import Candidate, Plan, digest
from ainfinity.schema.training_job import JobSpec
from ainfinity.schema.views import PlanView
from ainfinity.services.data import DataFacts, look_at
from training.recipe import Recipe

#: How a data file is looked at: `look_at`, or what also keeps its bytes. Called with the path and the setting's name.
Look = Callable[..., DataFacts]


def installed_backends() -> tuple[str, ...]:
    """Return the backends that this installation can launch on: SkyPilot's where it is installed."""
    return ("local", "skypilot") if find_spec("sky") is not None else ("local",)


def make_plan(
    spec: JobSpec,
    backends: tuple[str, ...],
    look: Look = look_at,
    default_deadline: float = Settings.default_deadline,
) -> tuple[Plan, tuple[str, ...]]:
    """Return the plan of a spec as things are now, and findings in words.

    `default_deadline` is the seconds after which an attempt elsewhere ends itself that nothing else limits.

    Errors:
        DataInvalid: the data cannot be trained on. NotSupported: no backend here runs that infrastructure.
    """
    if backend_of(spec.resources.infra) not in backends:
        raise NotSupported(
            f"resources.infra: this installation cannot launch on {spec.resources.infra!r} without SkyPilot.",
            hint='Install "ainfinity[sky]", or use local; --dry-run shows the SkyPilot task that it would be.',
            field="resources.infra",
        )
    price = 0.0 if spec.resources.infra == "local" else None
    candidate = Candidate(
        infra=spec.resources.infra, gpus=spec.resources.gpus, nodes=spec.resources.nodes, price_per_hour=price
    )
    if spec.recipe is None:
        plan = Plan(candidate=candidate, spec_sha256=digest(spec.as_json()))
        return plan, ("a SkyPilot task, launched as it is", *_elsewhere(spec, plan, default_deadline))
    recipe = spec.recipe
    facts = look(recipe.data)
    findings = [f"{recipe.data}: {facts.rows} rows, {facts.size} bytes"]
    held_out, eval_sha256 = recipe.eval_rows, None
    if recipe.eval_data is not None:
        eval_facts = look(recipe.eval_data, field="recipe.eval_data")
        held_out, eval_sha256 = eval_facts.rows, eval_facts.sha256
    findings.append(f"{held_out} rows held out" if held_out else "no held-out data: no loss before and after")
    plan = Plan(
        candidate=candidate,
        data_sha256=facts.sha256,
        data_rows=facts.rows,
        eval_data_sha256=eval_sha256,
        steps=_steps(spec, recipe, facts),
        spec_sha256=digest(spec.as_json()),
    )
    return plan, (*findings, *_elsewhere(spec, plan, default_deadline))


def _elsewhere(spec: JobSpec, plan: Plan, default_deadline: float) -> list[str]:
    """What must be known of a machine elsewhere before it is paid for: its price, its end, and what it keeps."""
    if spec.resources.infra == "local":
        return []
    policy, price = spec.policy, plan.candidate.price_per_hour
    limits = Limits(policy.max_duration, policy.max_cost, 0.0, price, plan.upper_seconds)
    seconds, why = time_limit(limits, default_deadline)
    hours = f"{seconds / HOUR:.3g} h"
    findings = [f"an attempt ends itself {hours} after its launch, by {why}; `ainfinity extend` moves that"]
    if price is None:
        bound = ", so policy.max_cost is watched only once the price is known" if policy.max_cost is not None else ""
        findings.append(f"the price is unknown until a machine is given{bound}")
    if spec.recipe is not None and spec.resources.storage is None:
        findings.append(
            "checkpoints lie on the machine's own disk: after a lost machine training starts anew; "
            "set resources.storage to go on from them"
        )
    return findings


def _steps(spec: JobSpec, recipe: Recipe, facts: DataFacts) -> int:
    """Optimizer steps if every row is kept; rows that the trainer drops make it fewer."""
    if recipe.max_steps is not None:
        return recipe.max_steps
    rows = facts.rows - (recipe.eval_rows if recipe.eval_data is None else 0)
    batch = recipe.micro_batch_size * recipe.accumulation * spec.resources.ranks * spec.resources.nodes
    return max(1, ceil(rows * recipe.epochs / batch))


def view(plan: Plan, spec: JobSpec, findings: tuple[str, ...]) -> PlanView:
    """Return the plan as fronts show it."""
    return PlanView(
        plan_hash=plan.plan_hash,
        plan=plan.model_dump(mode="json"),
        spec=spec.as_json(),
        needs_approval=spec.policy.approval == "required",
        findings=findings,
    )

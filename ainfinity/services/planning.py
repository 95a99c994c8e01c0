"""Plans: what a job would do, cost and read, hashed so that an approval can bind to it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from math import ceil

from ainfinity.core.exceptions import NotSupported
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


def make_plan(spec: JobSpec, backends: tuple[str, ...], look: Look = look_at) -> tuple[Plan, tuple[str, ...]]:
    """Return the plan of a spec as things are now, and findings in words.

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
        return Plan(candidate=candidate, spec_sha256=digest(spec.as_json())), ("a SkyPilot task, launched as it is",)
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
    return plan, tuple(findings)


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

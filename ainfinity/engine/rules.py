"""From a job's policy and the settings to the rules of its decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ainfinity.core.config import Settings
from ainfinity.domain.fold import JobFold
from ainfinity.domain.rules import Rules

#: Rules remembered at once; more are forgotten together, and made again.
_MOST = 20_000


class RuleBook:
    """The rules of each job, made once: specs never change."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._known: dict[tuple[str, bool, float], Rules] = {}

    def rules_for(self, spec: Mapping[str, Any], job: JobFold, lag: float) -> Rules:
        """Return the rules for a job on a backend with this lag, in seconds."""
        key = (job.id, job.claimed, lag)
        rules = self._known.get(key)
        if rules is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            rules = self._known[key] = make_rules(spec, job, lag, self.settings)
        return rules


def make_rules(spec: Mapping[str, Any], job: JobFold, lag: float, settings: Settings) -> Rules:
    """Return the rules that a spec, as JSON, and the settings amount to."""
    policy: Mapping[str, Any] = spec.get("policy") or {}
    adopted = bool(job.origin)
    return Rules(
        # A backend without lag knows at once what is there; elsewhere "not found" needs the grace to be believed.
        grace=max(settings.grace, lag) if lag else 0.0,
        # What somebody started otherwise cannot be started again from here.
        retries=0 if adopted else int(policy.get("retries", 0)),
        resume_lost=not adopted and _recovers(policy),
        trainer=not adopted and spec.get("recipe") is not None,
        keep_on_failure=float(policy.get("keep_on_failure") or 0.0),
        keep_unfetched=settings.keep_unfetched,
        fetch_patience=min(600.0, settings.keep_unfetched / 10),
        # At its deadline an attempt takes up to `stop_grace` to save; it gets thrice that before it is ended from here.
        deadline_margin=3 * settings.stop_grace,
        stuck_after=policy.get("stuck_after"),
        on_stuck=str(policy.get("on_stuck", "alert")),
        max_cost=policy.get("max_cost"),
    )


def _recovers(policy: Mapping[str, Any]) -> bool:
    """Whether a lost attempt is followed by another; specs stored earlier call it `on_lost`."""
    return policy.get("recover", "never" if policy.get("on_lost") == "fail" else "auto") == "auto"

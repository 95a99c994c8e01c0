"""The absolute deadline that every launch elsewhere carries, which its machine keeps when nobody else can."""

from __future__ import annotations

from dataclasses import dataclass

from ainfinity.domain.cost import HOUR

#: How many times longer than the plan's upper time an attempt may take whose policy sets no limit.
SLACK = 3.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What an attempt's time is bounded by: seconds, dollars, and dollars an hour; None where it is not set or known.

    `price_per_hour` is the dearest candidate's, `upper_seconds` the plan's upper time, `spent` what the job cost
    before, as far as that is known.
    """

    max_duration: float | None = None
    max_cost: float | None = None
    spent: float = 0.0
    price_per_hour: float | None = None
    upper_seconds: float | None = None


def time_limit(limits: Limits, default: float) -> tuple[float, str]:
    """Return how many seconds an attempt elsewhere may take from its launch on, and why in words."""
    known: list[tuple[float, str]] = []
    if limits.max_duration is not None:
        known.append((limits.max_duration, "policy.max_duration"))
    if limits.max_cost is not None and limits.price_per_hour:
        left = max(0.0, limits.max_cost - limits.spent)
        known.append((left / limits.price_per_hour * HOUR, "policy.max_cost"))
    if known:
        return min(known)
    if limits.upper_seconds is not None:
        return SLACK * limits.upper_seconds, f"{SLACK:g} times the plan's upper time"
    return default, "the setting default_deadline"

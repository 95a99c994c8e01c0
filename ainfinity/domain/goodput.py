"""How much of the time that was paid for went into steps that count."""

from __future__ import annotations

from collections.abc import Iterable


def goodput(steps: Iterable[tuple[int, float | None]], paid: Iterable[tuple[float | None, float]]) -> float | None:
    """Return useful step time over paid time, 0 to 1; None while there is neither.

    Args:
        steps: (step, seconds) of every reported optimizer step, over all attempts in order. A step that was made again
            after a loss counts once, as it was made last.
        paid: (when the machine first cost or None, when it ended or now) of each attempt.
    """
    useful = {step: seconds for step, seconds in steps if seconds is not None and seconds > 0}
    whole = sum(max(0.0, until - since) for since, until in paid if since is not None)
    if not useful or whole <= 0:
        return None
    return min(1.0, sum(useful.values()) / whole)

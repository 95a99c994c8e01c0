"""What machines cost: dollars from the hourly price of what was given and how long it was there.

A price that is not known makes a cost that is not known, None, which is never shown as $0. Time is paid for from the
first sight of a machine until its end is confirmed; the time of a recovery counts, so that a cost is rather too high.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from ainfinity.schema.event import Event, EventType
from ainfinity.schema.numbers import number

HOUR = 3600.0


class Metered(Protocol):
    """What runs at a price. `spent` is the cost up to `priced_from`, from which on the present price counts."""

    @property
    def price_per_hour(self) -> float | None:
        """Dollars an hour for all of it; None where that is unknown."""
        ...

    @property
    def priced_from(self) -> float | None:
        """Since when the present price is paid; None while nothing is."""
        ...

    @property
    def spent(self) -> float | None:
        """Dollars before that; None where some of it is unknown."""
        ...


def free(backend: str) -> float | None:
    """Return the price that is known beforehand: this machine costs nothing, another one tells what it costs."""
    return 0.0 if backend == "local" else None


def cost_of(of: Metered, now: float) -> float | None:
    """Return the dollars up to `now`; None where some of it is unknown."""
    return cost(of.spent, of.price_per_hour, of.priced_from, now)


def cost(spent: float | None, price_per_hour: float | None, priced_from: float | None, now: float) -> float | None:
    """Return `cost_of` what has these values."""
    if spent is None or priced_from is None:
        return spent
    if price_per_hour is None:
        return None
    return spent + price_per_hour * max(0.0, now - priced_from) / HOUR


def least_cost(of: Metered, now: float) -> float:
    """Return the dollars up to `now` that are known: what was spent at an unknown price is not in them.

    A budget is held against these, so that one machine without a price does not set all after it free.
    """
    since = now if of.priced_from is None else of.priced_from
    return (of.spent or 0.0) + (of.price_per_hour or 0.0) * max(0.0, now - since) / HOUR


def affordable_until(of: Metered, budget: float, price_per_hour: float, now: float) -> float:
    """Return when `of` will have cost `budget` dollars at that price, as far as its cost is known."""
    # Free is affordable for longer than any clock shows.
    return now + (max(0.0, budget - least_cost(of, now)) / price_per_hour * HOUR if price_per_hour > 0 else 1e9)


_SEEN = frozenset({EventType.ATTEMPT_SETTING_UP, EventType.ATTEMPT_RUNNING, EventType.ATTEMPT_RECOVERING})
_OVER = frozenset(
    {EventType.ATTEMPT_SUCCEEDED, EventType.ATTEMPT_FAILED, EventType.ATTEMPT_CANCELLED, EventType.ATTEMPT_LOST}
)


def metered(of: Metered, event: Event) -> dict[str, Any]:
    """Return what an event of a live attempt changes of its meter, and of its job's."""
    if event.type in _SEEN:
        return {} if of.priced_from is not None else {"priced_from": event.at}
    if event.type == EventType.ATTEMPT_GIVEN:
        return _given(of, event)
    began = number(event.data.get("paid_from"))
    begun: dict[str, Any] = {} if began is None or of.priced_from is not None else {"priced_from": began}
    if event.type in _OVER:
        since = begun.get("priced_from", of.priced_from)
        return {"spent": cost(of.spent, of.price_per_hour, since, event.at), "priced_from": None}
    return begun


def _given(of: Metered, event: Event) -> dict[str, Any]:
    price, moved = number(event.data.get("price_per_hour")), event.data.get("moved") is True
    if price is None and not moved:
        price = of.price_per_hour
    changes: dict[str, Any] = {"price_per_hour": price}
    if of.priced_from is None:
        return changes | {"priced_from": event.at}
    if moved and price != of.price_per_hour:
        # A first price that is told late counts from the beginning; that of another machine from the move.
        changes |= {"spent": cost_of(of, event.at), "priced_from": event.at}
    return changes


def total(costs: Iterable[float | None]) -> float | None:
    """Return the sum of costs; None where one of them is unknown."""
    known = 0.0
    for one in costs:
        if one is None:
            return None
        known += one
    return known

"""What fronts are shown of the world outside: answers with their age, orphans, what can be adopted.

Published models: `--json` output is validated against them. Times are Unix seconds (UTC), prices are dollars an hour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered from outside, and how old that is.

    `at` is when it was asked, and `error` (`code`, `message`, `hint`) is why a newer answer is missing; empty where
    this is as new as was wanted. `value` is None, with `at` 0, only where nothing was ever answered.
    """

    value: Any
    at: float
    error: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class OrphanRow:
    """A machine with this installation's name that no live job owns. Unknown money is None, never 0."""

    name: str
    #: `cluster` or `managed` (a managed job of SkyPilot).
    kind: str
    backend: str
    first_seen: float
    last_seen: float
    #: When it began to cost, or None where that is unknown.
    launched_at: float | None
    given: str
    price_per_hour: float | None
    #: Dollars since it was launched, or since it was first seen where that is unknown.
    leaked: float | None
    #: "", `keep` or `remove`, and who said so.
    answer: str
    answered_by: str
    #: When it is removed unless somebody answers; None where that was answered.
    removed_at: float | None


@dataclass(frozen=True, slots=True)
class AdoptableRow:
    """A cluster or managed job that was started with plain SkyPilot. `ident` is what `ainfinity adopt` takes."""

    kind: str
    ident: str
    name: str
    #: In SkyPilot's words.
    status: str
    given: str = ""
    launched_at: float | None = None
    price_per_hour: float | None = None
    #: The job that shows it already, or "".
    job_id: str = ""

"""What fronts are shown of accelerators, of SkyPilot's API server, and of the way into a job's machine.

Published models: `--json` output is validated against them. Prices are dollars an hour; None means unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ainfinity.schema.outside import AdoptableRow, OrphanRow


@dataclass(frozen=True, slots=True)
class GpuOffer:
    """One way to get an accelerator: a machine to rent, or what a cluster of one's own has. Prices are for a node."""

    name: str
    count: float
    infra: str
    region: str = ""
    instance: str = ""
    #: GiB of one accelerator, CPUs and GiB of the node.
    gpu_memory: float | None = None
    cpus: float | None = None
    memory: float | None = None
    price_per_hour: float | None = None
    spot_price_per_hour: float | None = None
    #: Accelerators in all and free now; None where a cloud does not tell.
    total: int | None = None
    free: int | None = None


@dataclass(frozen=True, slots=True)
class Gpus:
    """The answer to `gpus`. `at` is when it was asked; `error` is why there is no newer one, empty where it is new."""

    offers: tuple[GpuOffer, ...]
    at: float
    error: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Orphans:
    """The answer to `orphans`, the oldest first. `at` is when SkyPilot was last asked; 0 where it was not."""

    rows: tuple[OrphanRow, ...]
    at: float
    error: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Adoptables:
    """The answer to `adoptable`, with when it was asked and why there is no newer one."""

    rows: tuple[AdoptableRow, ...]
    at: float
    error: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class SkyStatus:
    """SkyPilot's API server. `problem` is "" where it can be used; `local` is whether it may be started from here."""

    endpoint: str
    local: bool
    reachable: bool
    problem: str = ""
    hint: str = ""
    version: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Shell:
    """A command line that reaches a job's machine, to be run as it stands. `machine` names where it leads."""

    argv: tuple[str, ...]
    machine: str

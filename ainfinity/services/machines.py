"""What fronts ask of SkyPilot about accelerators, its API server, and the way into a job's machine."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, cast

from ainfinity.compute.remote.ssh import Machine
from ainfinity.core.exceptions import NotSupported, Refused, UsageError, WrongState
from ainfinity.schema.actor import Actor, Role
from ainfinity.schema.machines import GpuOffer, Gpus, Shell, SkyStatus
from ainfinity.schema.states import ATTEMPT_LIVE
from ainfinity.services.outside import OutsideService
from ainfinity.store import jobs
from ainfinity.store.store import Store

_NO_SPOT: Final = frozenset({"slurm", "k8s", "kubernetes", "ssh"})
#: What the handle of an attempt begins with that SkyPilot's controller looks after.
_MANAGED: Final = "managed:"
#: How old answers may be, in seconds: prices change slowly, what is free does not.
_GPUS_AGE: Final = 120.0


class MachineService:
    """Questions about machines elsewhere. A call may take as long as its question's limit."""

    def __init__(self, store: Store, outside: OutsideService) -> None:
        self.store = store
        self.outside = outside

    def gpus(self, name: str = "", *, infra: str = "", refresh: bool = False) -> Gpus:
        """Return the accelerators that can be had, cheapest first. Errors: UsageError, ComputeUnreachable."""
        kind, _, count = name.partition(":")
        if count and not count.isdigit():
            raise UsageError(f"{name!r} names no accelerators.", hint="Give them as H100 or H100:8.", field="NAME")
        answer = self.outside.ask("gpus", max_age=_GPUS_AGE, refresh=refresh)
        offers = [offer for offer in _offers(answer.value) if _fits(offer, kind, int(count or 0), infra)]
        return Gpus(tuple(sorted(offers, key=_order)), answer.at, answer.error)

    def sky_status(self) -> SkyStatus:
        """Return how the API server is, as it is now. It is never started by the question."""
        return _status(self.outside.ask("health", refresh=True).value)

    def start_sky(self, actor: Actor) -> SkyStatus:
        """Start the API server of this machine, and record who had it started. Errors: Refused, ComputeUnreachable."""
        actor.must_be(Role.LAUNCHER, "start SkyPilot's API server")
        status = self.sky_status()
        if not status.problem:
            return status
        if not status.local or status.reachable:
            raise Refused(f"SkyPilot's API server at {status.endpoint}: {status.problem}", hint=status.hint)
        with self.store.write() as connection:
            jobs.audit(connection, self.store.clock.now(), actor.name, "start sky", status.endpoint)
        return _status(self.outside.ask("start", refresh=True).value)

    def reach(self, attempt: str) -> Machine:
        """Return the way to the machine of an attempt. Errors: ComputeUnreachable, NotFound."""
        found: dict[str, Any] = self.outside.ask("ssh", {"name": attempt}).value
        return Machine(Path(found["config"]), str(found["host"]))

    def shell(self, job: str, command: Sequence[str] = (), *, node: int = 0) -> Shell:
        """Return what to run for a shell, or a command, on a node of a job's machine.

        Errors:
            NotFound; WrongState: it has no machine now. NotSupported: it runs here. ComputeUnreachable.
        """
        with self.store.read() as connection:
            job_id = jobs.resolve(connection, job)
            row, attempts = jobs.get(connection, job_id), jobs.attempts(connection, job_id)
        if row.infra == "local":
            raise NotSupported(f"{row.name} runs on this machine.", hint="Open a terminal here.")
        attempt = attempts[-1] if attempts else None
        if attempt is None or attempt.state not in ATTEMPT_LIVE:
            raise WrongState(
                f"{row.name} is {row.state}: it has no machine.",
                hint="`policy.keep_on_failure: 2h`, or `ainfinity keep JOB 2h`, keeps one after the end.",
            )
        if attempt.handle.startswith(_MANAGED):
            raise NotSupported(
                f"{row.name} is a managed job: SkyPilot lets nobody into the machines of those.",
                hint="`ainfinity logs -f` shows what it says; launch with mode=cluster to have a way in.",
            )
        found: dict[str, Any] = self.outside.ask("ssh", {"name": attempt.name, "node": node}).value
        # ssh tells of new host keys, which are new with every machine, as warnings.
        argv = ["ssh", "-F", str(found["config"]), "-o", "LogLevel=ERROR"]
        if command:
            # One word for the shell there, so that every argument arrives as it was given here.
            return Shell((*argv, str(found["host"]), "--", shlex.join(command)), str(found["host"]))
        return Shell((*argv, str(found["host"])), str(found["host"]))


def _status(value: Any) -> SkyStatus:
    found = cast("Mapping[str, Any]", value)
    return SkyStatus(**{field.name: found[field.name] for field in fields(SkyStatus) if field.name in found})


def _offers(value: Any) -> list[GpuOffer]:
    """Join what is offered with what is free in clusters of one's own."""
    answer = cast("Mapping[str, Any]", value or {})
    free: list[Mapping[str, Any]] = list(answer.get("free", ()))
    told: list[Mapping[str, Any]] = []
    offers: list[GpuOffer] = []
    for row in answer.get("gpus", ()):
        # The catalogue may leave out which cluster it means; with one alone there is no doubt.
        same = [own for own in free if own["name"] == row["name"] and _is_within(own["infra"], row["infra"])]
        own = same[0] if len(same) == 1 else None
        told += [own] if own else []
        offers.append(_offer(row, own))
    rest = [own for own in free if own not in told]
    return offers + [
        GpuOffer(own["name"], max(own.get("per_node") or (1,)), own["infra"], total=own["total"], free=own["free"])
        for own in rest
    ]


def _offer(row: Mapping[str, Any], own: Mapping[str, Any] | None) -> GpuOffer:
    infra = own["infra"] if own else row["infra"]
    return GpuOffer(
        name=row["name"],
        count=row["count"],
        infra=infra,
        region=row.get("region", "") if own is None else "",
        instance=row.get("instance", ""),
        gpu_memory=row.get("gpu_memory"),
        cpus=row.get("cpus"),
        memory=row.get("memory"),
        price_per_hour=row.get("price"),
        # SkyPilot tells one for these too, and refuses to launch it.
        spot_price_per_hour=None if infra.partition("/")[0] in _NO_SPOT else row.get("spot_price"),
        total=own["total"] if own else None,
        free=own["free"] if own else None,
    )


def _is_within(infra: str, wider: str) -> bool:
    return infra == wider or infra.startswith(f"{wider}/")


def _fits(offer: GpuOffer, kind: str, count: int, infra: str) -> bool:
    named = not kind or offer.name.lower() == kind.lower()
    where = f"{offer.infra}/{offer.region}".lower()
    there = not infra or where == infra.lower() or where.startswith(f"{infra.lower().rstrip('/')}/")
    return named and there and (not count or offer.count == count)


def _order(offer: GpuOffer) -> tuple[Any, ...]:
    price = offer.price_per_hour
    return (offer.name, offer.count, price is None, price or 0.0, offer.infra, offer.region)

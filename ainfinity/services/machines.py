"""What fronts ask of SkyPilot about accelerators, its API server, and the way into a job's machine."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final, cast

from ainfinity.core.exceptions import NotSupported, Refused, UsageError, WrongState
from ainfinity.schema.actor import Actor, Role
from ainfinity.schema.machines import GpuOffer, Gpus, Shell, SkyStatus
from ainfinity.schema.states import ATTEMPT_TERMINAL
from ainfinity.schema.views import AttemptRow
from ainfinity.services.outside import OutsideService
from ainfinity.store import jobs
from ainfinity.store.store import Store

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
        if attempt is None or not self._has_machine(attempt):
            raise WrongState(
                f"{row.name} is {row.state}: it has no machine.",
                hint="`policy.keep_on_failure: 2h`, or `ainfinity keep JOB 2h`, keeps one after the end.",
            )
        found: dict[str, Any] = self.outside.ask("ssh", {"name": attempt.name, "node": node}).value
        argv = ["ssh", "-F", str(found["config"])]
        if command:
            # One word for the shell there, so that every argument arrives as it was given here.
            return Shell((*argv, str(found["host"]), "--", shlex.join(command)), str(found["host"]))
        return Shell((*argv, str(found["host"])), str(found["host"]))

    def _has_machine(self, attempt: AttemptRow) -> bool:
        if attempt.state not in ATTEMPT_TERMINAL:
            return True
        return attempt.keep_until is not None and attempt.keep_until > self.store.clock.now()


def _status(value: Any) -> SkyStatus:
    found = cast("Mapping[str, Any]", value)
    return SkyStatus(**{field.name: found[field.name] for field in fields(SkyStatus) if field.name in found})


def _offers(value: Any) -> list[GpuOffer]:
    """Join what clouds offer with what is free in clusters of one's own, which stand in both lists or in one."""
    answer = cast("Mapping[str, Any]", value or {})
    free = {(row["name"], row["infra"]): row for row in answer.get("free", ())}
    offers: list[GpuOffer] = []
    for row in answer.get("gpus", ()):
        own = free.pop((row["name"], row["infra"]), None)
        offers.append(
            GpuOffer(
                row["name"],
                row["count"],
                row["infra"],
                row.get("region", ""),
                row.get("instance", ""),
                row.get("gpu_memory"),
                row.get("cpus"),
                row.get("memory"),
                row.get("price"),
                row.get("spot_price"),
                own["total"] if own else None,
                own["free"] if own else None,
            )
        )
    for own in free.values():
        per_node = max(own.get("per_node") or (1,))
        offers.append(GpuOffer(own["name"], per_node, own["infra"], total=own["total"], free=own["free"]))
    return offers


def _fits(offer: GpuOffer, kind: str, count: int, infra: str) -> bool:
    named = not kind or offer.name.lower() == kind.lower()
    where = f"{offer.infra}/{offer.region}".lower()
    there = not infra or where == infra.lower() or where.startswith(f"{infra.lower().rstrip('/')}/")
    return named and there and (not count or offer.count == count)


def _order(offer: GpuOffer) -> tuple[Any, ...]:
    price = offer.price_per_hour
    return (offer.name, offer.count, price is None, price or 0.0, offer.infra, offer.region)

"""What was started with plain SkyPilot, shown among our jobs: state, log and cost, and read-only until claimed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ainfinity.core.exceptions import NotFound, UsageError
from ainfinity.schema.actor import Actor, Role
from ainfinity.schema.event import Event, EventType
from ainfinity.schema.machines import Adoptables
from ainfinity.schema.numbers import number
from ainfinity.schema.outside import AdoptableRow, Answer
from ainfinity.schema.states import JOB_LIVE
from ainfinity.schema.training_job import JobSpec
from ainfinity.schema.views import JobRow
from ainfinity.services.outside import OutsideService
from ainfinity.services.training_service import random_id
from ainfinity.store import events, jobs, orphans
from ainfinity.store.events import JOB
from ainfinity.store.store import Store

#: How old a list may be, in seconds.
MAX_AGE = 60.0
#: What an infrastructure is called that SkyPilot does not tell yet.
_ANYWHERE = "any"
_RUNS = frozenset({"UP", "RUNNING", "WINDING_DOWN"})
_LIVE = tuple(str(state) for state in JOB_LIVE)


class AdoptionService:
    """Finds and adopts. Its calls may take as long as a question to SkyPilot."""

    def __init__(self, store: Store, outside: OutsideService, new_id: Callable[[], str] = random_id) -> None:
        self.store = store
        self.outside = outside
        self.new_id = new_id

    def adoptable(self, *, refresh: bool = False) -> Adoptables:
        """Return what could be adopted or was, without what our own jobs run on.

        Errors:
            ComputeUnreachable: SkyPilot does not answer, and never did.
        """
        answer = self._ask(refresh=refresh)
        with self.store.read() as connection:
            rows = self._rows(connection, answer)
        return Adoptables(tuple(rows), answer.at, answer.error)

    def adopt(self, kind: Literal["cluster", "managed"], ident: str, actor: Actor, *, claim: bool = False) -> JobRow:
        """Show a cluster or managed job as a job; with `claim`, or later with it, it is ours to end. Repeatable.

        Errors:
            UsageError; NotFound: SkyPilot lists no such thing. ComputeUnreachable.
        """
        actor.must_be(Role.LAUNCHER, "adopt jobs")
        if kind not in ("cluster", "managed"):
            raise UsageError(f"{kind!r} cannot be adopted.", hint="Give --cluster NAME or --managed ID.")
        if kind == "managed" and not ident.isdigit():
            raise UsageError(f"{ident!r} is no number of a managed job.", hint="See `ainfinity adopt --list`.")
        origin = f"{kind}:{ident}"
        with self.store.read() as connection:
            known = _live_of(connection, origin)
        found = None if known else self._find(kind, ident)
        with self.store.write(durable=True) as connection:
            job_id = _live_of(connection, origin)
            if job_id is None and found is not None:
                job_id = self._insert(connection, origin, found, actor)
            if job_id is None:
                raise _unknown(kind, ident)  # it ended meanwhile
            if claim and not jobs.fold_of(connection, job_id).claimed:
                self._record(connection, [Event(EventType.CLAIMED, job_id, self.store.clock.now(), actor.name)])
                jobs.audit(connection, self.store.clock.now(), actor.name, "claim", job_id, origin=origin)
            return jobs.get(connection, job_id, self.store.clock.now())

    def _find(self, kind: str, ident: str) -> Mapping[str, Any]:
        for refresh in (False, True):  # it may have been started since
            answer = self._ask(refresh=refresh)
            with self.store.read() as connection:
                taken = orphans.owners(connection, [str(one["name"]) for one in _entries(answer)])
            for entry in _entries(answer):
                owner = taken.get(str(entry["name"]))
                if entry["kind"] == kind and str(entry["ident"]) == ident and (owner is None or owner.only_shown):
                    return entry
            if answer.error:
                raise NotFound(
                    f"SkyPilot listed no {kind} {ident}, and does not answer now: {answer.error.get('message', '')}",
                    hint="Try again later.",
                )
        raise _unknown(kind, ident)

    def _ask(self, *, refresh: bool) -> Answer:
        with self.store.read() as connection:
            prefix = f"ain-{jobs.installation(connection)}-"
        return self.outside.ask("adoptable", {"prefix": prefix}, max_age=MAX_AGE, refresh=refresh)

    def _rows(self, connection: Connection, answer: Answer) -> list[AdoptableRow]:
        entries = _entries(answer)
        owners = orphans.owners(connection, [str(one["name"]) for one in entries])
        rows: list[AdoptableRow] = []
        for entry in entries:
            job_id = _live_of(connection, f"{entry['kind']}:{entry['ident']}") or ""
            owner = owners.get(str(entry["name"]))
            if job_id or owner is None or owner.only_shown:
                rows.append(
                    AdoptableRow(
                        kind=str(entry["kind"]),
                        ident=str(entry["ident"]),
                        name=str(entry["name"]),
                        status=str(entry["status"]),
                        given=str(entry.get("given", "")),
                        launched_at=number(entry.get("launched_at")),
                        price_per_hour=number(entry.get("price_per_hour")),
                        job_id=job_id,
                    )
                )
        return rows

    def _insert(self, connection: Connection, origin: str, entry: Mapping[str, Any], actor: Actor) -> str:
        """Store the job with its one attempt, which is named by its origin, and all that is known of it."""
        job_id, now = self.new_id(), self.store.clock.now()
        spec = _spec(self._free_name(connection, str(entry["name"])), entry)
        launched = number(entry.get("launched_at"))
        attempt = _attempt_name(connection, origin)
        values: dict[str, Any] = {
            "id": job_id,
            "key": f"adopt-{job_id}",
            "name": spec.name,
            "owner": actor.name,
            "team": "local",
            "model": "",
            "infra": spec.resources.infra,
            "slots": 0,
            "notify": spec.policy.notify,
            "spec": spec.as_json(),
            "state": "planning",
            "desired": "run",
            "submitted_at": now,
        }
        jobs.insert(connection, values)
        # If it is an orphan of ours, this is its owner's answer.
        orphans.forget(connection, [str(entry["name"])])

        def event(kind: EventType, data: dict[str, Any], at: float = now) -> Event:
            return Event(kind, job_id, at, actor.name, 1 if kind.startswith("attempt.") else 0, data)

        made = [
            event(EventType.SUBMITTED, {"name": spec.name, "provenance": {"origin": origin}}),
            event(EventType.ADOPTED, {"origin": origin}),
            event(EventType.ATTEMPT_INTENDED, {"name": attempt, "backend": "skypilot"}),
            event(EventType.ATTEMPT_ADOPTED, {"handle": origin}),
        ]
        if entry["status"] in _RUNS:
            # It costs since its launch, not since somebody looked.
            began = {} if launched is None else {"paid_from": launched}
            made.append(event(EventType.ATTEMPT_RUNNING, began, now if launched is None else min(now, launched)))
            price = number(entry.get("price_per_hour"))
            made.append(event(EventType.ATTEMPT_GIVEN, {"price_per_hour": price, "given": str(entry.get("given", ""))}))
        self._record(connection, made)
        jobs.audit(connection, now, actor.name, "adopt", job_id, origin=origin)
        return job_id

    def _free_name(self, connection: Connection, wanted: str) -> str:
        """A job's name made of SkyPilot's, with a number where a live job has that."""
        base = re.sub(r"[^a-z0-9]+", "-", wanted.lower()).strip("-")[:56].strip("-") or "adopted"
        name, number_ = base, 1
        while jobs.live_id_of_name(connection, name) is not None:
            number_ += 1
            name = f"{base}-{number_}"
        return name

    def _record(self, connection: Connection, made: Sequence[Event]) -> None:
        events.append(connection, made, self.store.places)


def _live_of(connection: Connection, origin: str) -> str | None:
    """Return the live job that shows this, if there is one."""
    statement = sa.select(JOB.c.id).where(JOB.c.origin == origin, JOB.c.state.in_(_LIVE)).limit(1)
    return connection.scalars(statement).first()


def _attempt_name(connection: Connection, origin: str) -> str:
    """Return the origin; where it was adopted before, with a number, for attempts' names are unique."""
    before = connection.scalar(sa.select(sa.func.count()).select_from(JOB).where(JOB.c.origin == origin)) or 0
    return f"{origin}@{before + 1}" if before else origin


def _entries(answer: Answer) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", answer.value or [])


def _spec(name: str, entry: Mapping[str, Any]) -> JobSpec:
    """Return a spec that stands for what nobody here wrote: only where it runs is known."""
    infra = str(entry.get("infra") or "").strip("-") or _ANYWHERE
    return JobSpec.model_validate(
        {
            "name": name,
            "sky": {"name": str(entry["name"])},
            "resources": {"infra": infra},
            "policy": {"recover": "never"},
            "note": "Started with plain SkyPilot.",
        }
    )


def _unknown(kind: str, ident: str) -> NotFound:
    what = "managed job" if kind == "managed" else "cluster"
    return NotFound(
        f"SkyPilot lists no {what} {ident}.", hint="`ainfinity adopt --list --refresh` shows what there is."
    )

"""Machines with this installation's name that no live job owns: what they cost, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

from sqlalchemy.engine import Connection

from ainfinity.core.exceptions import AinfinityError, NotFound, UsageError
from ainfinity.schema.actor import ENGINE, Actor, Role
from ainfinity.schema.machines import Orphans
from ainfinity.schema.outside import Answer, OrphanRow
from ainfinity.services.outside import OutsideService
from ainfinity.store import jobs, orphans
from ainfinity.store.orphans import Orphan
from ainfinity.store.store import Store

#: How old an answer of SkyPilot's may be, in seconds; a live worker writes one more often than that.
MAX_AGE = 60.0


class OrphanService:
    """What the engine found, joined with what SkyPilot lists; `orphan_after` is the setting of that name, in seconds.

    `list` may take as long as a question to SkyPilot, so callers make it on a thread of its own.
    """

    def __init__(self, store: Store, outside: OutsideService, orphan_after: float) -> None:
        self.store = store
        self.outside = outside
        self.orphan_after = orphan_after

    def list(self, *, refresh: bool = False) -> Orphans:
        """Return all of them, the oldest first, with the age of the list and why there is no newer one."""
        answer = self._ask(refresh=refresh)
        now = self.store.clock.now()
        with self.store.read() as connection:
            known = orphans.listed(connection)
            listed = self._listed(connection, answer, {one.name for one in known})
        fresh = [one for one in listed if not one.answer]
        if fresh:  # so that a worker sees to it: it is told of, and removed unless somebody answers
            with self.store.write() as connection:
                orphans.put(connection, fresh)
        rows = [self._row(orphan, now) for orphan in sorted((*known, *listed), key=_age)]
        return Orphans(tuple(rows), answer.at, answer.error)

    def answer(self, name: str, answer: Literal["keep", "remove"], actor: Actor) -> OrphanRow:
        """Say what becomes of one; a later answer takes the place of an earlier one. Errors: NotFound, UsageError."""
        actor.must_be(Role.ADMIN, "answer for orphans")
        if answer not in ("keep", "remove"):
            raise UsageError(f"{answer!r} is no answer.", hint="Say keep or remove.")
        with self.store.read() as connection:
            known = orphans.get(connection, name)
        if known is None:
            self.list()
        now = self.store.clock.now()
        with self.store.write() as connection:
            orphans.answer(connection, name, answer, actor.name)
            found = orphans.get(connection, name)
            if found is None:
                raise _unknown(name)
            jobs.audit(connection, now, actor.name, f"orphan.{answer}", name, price_per_hour=found.price_per_hour)
        return self._row(found, now)

    def _ask(self, *, refresh: bool) -> Answer:
        with self.store.read() as connection:
            prefix = f"ain-{jobs.installation(connection)}-"
        try:
            return self.outside.ask("orphans", {"prefix": prefix}, max_age=MAX_AGE, refresh=refresh)
        except AinfinityError as error:
            return Answer([], 0.0, error.as_dict())

    def _listed(self, connection: Connection, answer: Answer, known: set[str]) -> list[Orphan]:
        """What SkyPilot lists beyond what the engine recorded, without what has an owner that wants it."""
        entries = [one for one in _entries(answer.value) if one["name"] not in known]
        owners = orphans.owners(connection, [str(one["name"]) for one in entries])
        found: list[Orphan] = []
        for entry in entries:
            owner = owners.get(str(entry["name"]))
            if owner is None or owner.wants_it_gone(answer.at):
                orphan = orphans.from_entry(entry, answer.at)
                # What outlived its attempt is stopped without asking.
                found.append(orphan if owner is None else replace(orphan, answer="remove", answered_by=ENGINE.name))
        return found

    def _row(self, orphan: Orphan, now: float) -> OrphanRow:
        return OrphanRow(
            name=orphan.name,
            kind=orphan.kind,
            backend=orphan.backend,
            first_seen=orphan.first_seen,
            last_seen=orphan.last_seen,
            launched_at=orphan.launched_at,
            given=orphan.given,
            price_per_hour=orphan.price_per_hour,
            leaked=orphan.leaked(now),
            answer=orphan.answer,
            answered_by=orphan.answered_by,
            removed_at=orphan.removed_at(self.orphan_after),
        )


def _entries(value: Any) -> Sequence[Mapping[str, Any]]:
    entries = cast("list[dict[str, Any]]", value) if isinstance(value, list) else []
    return [one for one in entries if one.get("name")]


def _age(orphan: Orphan) -> tuple[float, str]:
    return (orphan.first_seen if orphan.launched_at is None else orphan.launched_at, orphan.name)


def _unknown(name: str) -> NotFound:
    return NotFound(f"There is no orphan {name}.", hint="`ainfinity orphans --refresh` lists what there is now.")

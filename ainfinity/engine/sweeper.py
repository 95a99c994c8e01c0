"""Finding what runs under our name though no live job owns it, so that nothing burns money unnoticed.

What belongs to an attempt that is over here is a teardown that was not confirmed: it is stopped at once. What no
attempt here is called, as after a restored backup, may be somebody's work: the owner is asked, and without an answer it
is removed after a while. What another installation started is left alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ainfinity.compute.port import Compute
from ainfinity.core.config import Settings
from ainfinity.core.exceptions import FolderUnwritable
from ainfinity.domain.observation import Observation
from ainfinity.engine.fence import Fence
from ainfinity.engine.launch import name_prefix
from ainfinity.schema.actor import ENGINE
from ainfinity.schema.event import EventType
from ainfinity.store import jobs, orphans
from ainfinity.store.answers import AnswerFiles, Kept
from ainfinity.store.orphans import Orphan

_log = logging.getLogger(__name__)

#: How long after a stop it is asked for again: a machine takes its time to go. Seconds.
_STOP_AGAIN: Final = 15.0
#: How far `last_seen` may lag behind, so that not every look writes. Seconds.
_LAST_SEEN: Final = 60.0
#: How often what a backend lists is written down for fronts to read. Seconds.
_PUBLISH: Final = 15.0


@dataclass(slots=True)
class _Memory:
    """What this worker remembers of one backend between sweeps; a restart only makes things take longer."""

    strangers: dict[str, float] = field(default_factory=dict[str, float])
    absent_since: dict[str, float] = field(default_factory=dict[str, float])
    stopped_at: dict[str, float] = field(default_factory=dict[str, float])


class Sweeper:
    """Finds orphans in what remote backends list, has the owner asked, and says what is to be stopped."""

    def __init__(self, fence: Fence, settings: Settings, probe: Callable[[str], None]) -> None:
        self.fence = fence
        self.settings = settings
        self.probe = probe
        self.answers = AnswerFiles(settings.cache_dir / "answers")
        self._published = float("-inf")
        self._listed: set[str] = set()
        self._memory: dict[str, _Memory] = {}
        self._prefix = ""

    def sweep(
        self, compute: Compute, found: Mapping[str, Observation], live_names: Collection[str], now: float
    ) -> list[str]:
        """Take in one list of a backend, as of `now`, and return the names to stop.

        `live_names` are the attempts that live jobs own. A stranger is believed once two lists in a row show it, so
        that a launch in flight is none. Call it only with what the backend did answer.

        Errors:
            LeaseLost.
        """
        memory = self._memory.setdefault(compute.name, _Memory())
        with self.fence.store.read() as connection:
            self._prefix = self._prefix or name_prefix(jobs.installation(connection))
            running = {name for name, seen in found.items() if seen.machine and name.startswith(self._prefix)}
            strangers = running - set(live_names)
            known = {orphan.name: orphan for orphan in orphans.listed(connection, compute.name)}
            asked_of = strangers | known.keys()
            owners = orphans.owners(connection, asked_of) if asked_of else {}
        self._publish(compute.name, running, found, now)
        twice = strangers & memory.strangers.keys()
        memory.strangers = {name: memory.strangers.get(name, now) for name in strangers}
        current = {
            name: _as_seen(known.get(name), found[name], compute.name, memory.strangers[name], now)
            for name in twice - owners.keys()
        }
        gone = self._gone(memory, known, found, now, max(self.settings.grace, compute.lag))
        owned = known.keys() & (owners.keys() | set(live_names))
        self._record(known, current, gone - owned, owned, now)
        wanted = {name for name, orphan in current.items() if self._is_due(orphan, now)}
        wanted |= {name for name in twice & owners.keys() if owners[name].wants_it_gone(now)}
        return self._not_lately(memory, wanted, now)

    def _publish(self, backend: str, running: Collection[str], found: Mapping[str, Observation], now: float) -> None:
        """Answer what fronts would have to ask SkyPilot for: it was seen anyway."""
        if now - self._published < _PUBLISH and self._listed == set(running):
            return
        entries = [orphans.as_entry(_as_seen(None, found[name], backend, now, now)) for name in sorted(running)]
        try:
            self.answers.write("orphans", {"prefix": self._prefix}, Kept(entries, now, self.fence.store.clock.now()))
        except (OSError, FolderUnwritable) as error:
            _log.warning("the list of machines cannot be kept for fronts: %s", error)
        self._published, self._listed = now, set(running)

    def _gone(
        self,
        memory: _Memory,
        known: Mapping[str, Orphan],
        found: Mapping[str, Observation],
        now: float,
        grace: float,
    ) -> set[str]:
        """The known orphans of which nothing runs: by the backend's word, or missing for as long as is believed."""
        absent = known.keys() - found.keys()
        memory.absent_since = {name: memory.absent_since.get(name, now) for name in absent}
        ended = {name for name in known.keys() & found.keys() if not found[name].machine}
        return ended | {name for name, since in memory.absent_since.items() if now - since >= grace}

    def _record(
        self,
        known: Mapping[str, Orphan],
        current: Mapping[str, Orphan],
        gone: Collection[str],
        owned: Collection[str],
        now: float,
    ) -> None:
        fresh = [orphan for name, orphan in current.items() if name not in known or not known[name].told]
        changed = [
            orphan
            for name, orphan in current.items()
            if name in known
            and known[name].told
            and (now - known[name].last_seen >= _LAST_SEEN or _differs(orphan, known[name]))
        ]
        if not (fresh or changed or gone or owned):
            return
        with self.fence.write() as connection:
            orphans.put(connection, [*fresh, *changed])
            orphans.forget(connection, {*gone, *owned})
            told = [(one.name, self._told(one, now)) for one in fresh]
            orphans.tell(connection, EventType.ORPHAN_FOUND, told, now, ENGINE.name, self.fence.store.places)
            ended = [known[name] for name in sorted(gone) if known[name].told]
            over = [(one.name, self._told(one, now, self._remover(one, now))) for one in ended]
            orphans.tell(connection, EventType.ORPHAN_REMOVED, over, now, ENGINE.name, self.fence.store.places)
            for name, data in over:
                jobs.audit(connection, now, ENGINE.name, "orphan.removed", name, by=data["by"], leaked=data["leaked"])
        for orphan in fresh:
            _log.warning("%s runs and no job owns it", orphan.name)
        self.probe("sweep:recorded")

    def _told(self, orphan: Orphan, now: float, by: str = "") -> dict[str, Any]:
        return {
            "kind": orphan.kind,
            "backend": orphan.backend,
            "given": orphan.given,
            "price_per_hour": orphan.price_per_hour,
            "launched_at": orphan.launched_at,
            "first_seen": orphan.first_seen,
            "leaked": orphan.leaked(now),
            "removed_at": orphan.removed_at(self.settings.orphan_after),
            "by": by,
        }

    def _is_due(self, orphan: Orphan, now: float) -> bool:
        if orphan.answer:
            return orphan.answer == "remove"
        return now - orphan.first_seen >= self.settings.orphan_after

    def _remover(self, orphan: Orphan, now: float) -> str:
        """Who ended it: the engine, if it was to; else it went by itself or somebody else removed it."""
        return ENGINE.name if self._is_due(orphan, now) else "outside"

    def _not_lately(self, memory: _Memory, wanted: Collection[str], now: float) -> list[str]:
        memory.stopped_at = {name: at for name, at in memory.stopped_at.items() if name in wanted}
        due = [name for name in sorted(wanted) if now - memory.stopped_at.get(name, float("-inf")) >= _STOP_AGAIN]
        memory.stopped_at.update(dict.fromkeys(due, now))
        for name in due:
            _log.warning("stopping %s, which no live job owns", name)
        return due


def _as_seen(known: Orphan | None, seen: Observation, backend: str, first_seen: float, now: float) -> Orphan:
    if known is None:
        kind = "managed" if seen.handle.startswith("managed:") else "cluster"
        known = Orphan(seen.name, backend, kind, first_seen, now)
    return replace(
        known,
        last_seen=now,
        launched_at=seen.launched_at or known.launched_at,
        price_per_hour=known.price_per_hour if seen.price_per_hour is None else seen.price_per_hour,
        given=seen.given or known.given,
        told=True,
    )


def _differs(new: Orphan, old: Orphan) -> bool:
    return replace(new, last_seen=old.last_seen) != old

"""What SkyPilot says of everything at one look, in as few requests however many attempts there are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ainfinity.compute.remote.attempts import Attempt
from ainfinity.compute.remote.record import End, Record
from ainfinity.compute.remote.rows import ClusterRow, ManagedRow, RequestLost, RequestRow, Sky, SkyRefused
from ainfinity.domain.observation import Phase

#: What an attempt's name looks like, of whatever installation.
NAME: Final = re.compile(r"ain-[a-z0-9]{1,12}-[a-z0-9]{1,16}-a\d+")
_LAUNCH: Final = "launch"
#: Seconds for which an answer about managed jobs is good; SkyPilot itself looks at them every 15.
_MANAGED_EVERY: Final = 4.0


@dataclass(frozen=True, slots=True)
class World:
    """Requests that are under way, clusters by name, managed jobs by number and, the newest of a name, by name."""

    requests: Mapping[str, RequestRow]
    clusters: Mapping[str, ClusterRow]
    managed: Mapping[int, ManagedRow]
    managed_names: Mapping[str, ManagedRow]

    def launch_of(self, cluster: str) -> str:
        """Return the request that launches a cluster now; "" for none."""
        return next((row.id for row in self.requests.values() if row.cluster == cluster and row.name == _LAUNCH), "")

    def managed_of(self, record: Record) -> ManagedRow | None:
        """Return the managed job of an attempt."""
        found = None if record.job_id is None else self.managed.get(record.job_id)
        return found or self.managed_names.get(record.name)


class Asker:
    """Asks, and keeps the answer about managed jobs for a little: SkyPilot takes seconds for it."""

    def __init__(self, sky: Sky) -> None:
        self._sky = sky
        self._key: object = None
        self._rows: list[ManagedRow] = []
        self._asked = float("-inf")

    def ask(self, attempts: Sequence[Attempt], now: float) -> World:
        """Ask for requests, where a launch or an end is under way, for clusters, and for managed jobs if there are any.

        Errors:
            ComputeUnreachable: the API server does not answer.
        """
        on_its_way = any(_is_on_its_way(one.record) for one in attempts)
        # A request that was sent only meanwhile would look like one that is over.
        sent = [(one, one.record.request_id) for one in attempts if one.record.request_id]
        # Requests first: what was over by then is seen in the answers that follow.
        requests = {row.id: row for row in self._sky.requests()} if on_its_way else {}
        for attempt, request in sent:
            if request not in requests:
                _settle(self._sky, attempt, request, now)
        clusters = {row.name: row for row in self._sky.clusters()}
        managed = self._ask_managed([one.record for one in attempts if one.record.mode == "managed"], now)
        names: dict[str, ManagedRow] = {}
        for row in managed:
            if row.name not in names or row.id > names[row.name].id:
                names[row.name] = row
        return World(requests, clusters, {row.id: row for row in managed}, names)

    def _ask_managed(self, records: Sequence[Record], now: float) -> list[ManagedRow]:
        wanted = [record for record in records if not record.gone]
        if not wanted:
            return []
        # What is known or wished of one of them is part of the question: an answer from before it would mislead.
        key = [(record.name, record.job_id, record.request_id, record.stopped_at) for record in wanted]
        if key == self._key and now - self._asked < _MANAGED_EVERY:
            return self._rows
        # One whose number is not known yet is found by its name: all of this installation's are asked for.
        named = [record for record in wanted if not record.is_adopted]
        rows: list[ManagedRow] = []
        if any(record.job_id is None for record in named):
            rows = self._sky.managed_jobs(name=_common_part([record.name for record in named]))
            wanted = [record for record in wanted if record.is_adopted]
        if ids := [record.job_id for record in wanted if record.job_id is not None]:
            rows = rows + self._sky.managed_jobs(ids=ids)
        self._key, self._rows, self._asked = key, rows, now
        return rows


def _is_on_its_way(record: Record) -> bool:
    """Whether a request about it may be under way."""
    if record.request_id or (record.stopped_at is not None and not record.gone):
        return True
    return record.job_id is None and record.end is None and not record.gone


def _common_part(names: Sequence[str]) -> str:
    """What the names of one installation's attempts have in common."""
    return names[0] if len(names) == 1 else "-".join(names[0].split("-")[:2]) + "-"


def _settle(sky: Sky, attempt: Attempt, request: str, now: float) -> None:
    """Take in what became of a launch that is no longer under way at the API server."""
    record = attempt.record
    try:
        job = sky.result(request)
    except RequestLost:
        with attempt.lock:
            record.request_id = ""
    except SkyRefused as error:
        with attempt.lock:
            record.request_id = ""
            if record.stopped_at is None:
                record.end = record.end or End(Phase.EXITED.value, 1, error.kind, str(error), now)
    else:
        with attempt.lock:
            record.request_id, record.seen = "", True
            record.job_id = job if job is not None else record.job_id


def strangers_in(clusters: Mapping[str, ClusterRow], managed: Sequence[ManagedRow]) -> list[Record]:
    """Return records for what bears an attempt's name, for those of which nothing is remembered."""
    found = [
        Record(row.name, "cluster", given=row.given, seen=True, billed_from=row.launched_at)
        for row in clusters.values()
    ]
    found += [
        Record(
            row.name,
            "managed",
            job_id=row.id,
            cluster=row.cluster,
            given=row.given,
            seen=True,
            billed_from=row.started_at or row.submitted_at,
        )
        for row in managed
    ]
    return [record for record in found if NAME.fullmatch(record.name)]

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


def ask_world(sky: Sky, attempts: Sequence[Attempt], now: float) -> World:
    """Ask for requests, where a launch or an end is under way, for clusters, and for managed jobs where there are any.

    Errors:
        ComputeUnreachable: the API server does not answer.
    """
    # Requests first: what was over by then is seen in the answers that follow.
    requests = {row.id: row for row in sky.requests()} if any(_is_on_its_way(one.record) for one in attempts) else {}
    for attempt in attempts:
        _settle(sky, attempt, requests, now)
    clusters = {row.name: row for row in sky.clusters()}
    managed = _ask_managed(sky, [one.record for one in attempts if one.record.mode == "managed"])
    names: dict[str, ManagedRow] = {}
    for row in managed:
        if row.name not in names or row.id > names[row.name].id:
            names[row.name] = row
    return World(requests, clusters, {row.id: row for row in managed}, names)


def _is_on_its_way(record: Record) -> bool:
    """Whether a request about it may be under way."""
    if record.request_id or (record.stopped_at is not None and not record.gone):
        return True
    return record.job_id is None and record.end is None and not record.gone


def _ask_managed(sky: Sky, records: Sequence[Record]) -> list[ManagedRow]:
    wanted = [record for record in records if not record.gone]
    ids = [record.job_id for record in wanted if record.job_id is not None]
    if not wanted:
        return []
    if len(ids) == len(wanted):
        return sky.managed_jobs(ids=ids)
    # One whose number is not known yet is found by its name: all of this installation's are asked for.
    return sky.managed_jobs(name=_common_part([record.name for record in wanted]))


def _common_part(names: Sequence[str]) -> str:
    """What the names of one installation's attempts have in common."""
    return names[0] if len(names) == 1 else "-".join(names[0].split("-")[:2]) + "-"


def _settle(sky: Sky, attempt: Attempt, requests: Mapping[str, RequestRow], now: float) -> None:
    """Take in what became of a launch that is no longer under way at the API server."""
    record, request = attempt.record, attempt.record.request_id
    if not request or request in requests or attempt.posting:
        return
    try:
        job = sky.result(request)
    except RequestLost:
        with attempt.lock:
            record.request_id = ""
    except SkyRefused as error:
        with attempt.lock:
            record.request_id = ""
            record.end = record.end or End(Phase.EXITED.value, 1, error.kind, str(error), now)
    else:
        with attempt.lock:
            record.request_id, record.seen = "", True
            record.job_id = job if job is not None else record.job_id


def strangers_in(clusters: Mapping[str, ClusterRow], managed: Sequence[ManagedRow]) -> list[Record]:
    """Return records for what bears an attempt's name, for those of which nothing is remembered."""
    found = [Record(row.name, "cluster", given=row.given, seen=True) for row in clusters.values()]
    found += [
        Record(row.name, "managed", job_id=row.id, cluster=row.cluster, given=row.given, seen=True) for row in managed
    ]
    return [record for record in found if NAME.fullmatch(record.name)]

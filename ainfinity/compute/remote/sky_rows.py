"""From SkyPilot's records to our rows. Its types are told by what they have, so nothing of SkyPilot is imported."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from ainfinity.compute.remote.rows import (
    ClusterRow,
    FreeRow,
    GivenRow,
    GpuRow,
    ManagedRow,
    PricedRow,
    QueueRow,
    RequestRow,
)
from ainfinity.core.redact import redact

#: What is asked of managed jobs: without the heavy fields, as the task itself.
MANAGED_FIELDS: Final = (
    "job_id", "task_id", "job_name", "status", "schedule_state", "recovery_count", "failure_reason", "details",
    "current_cluster_name", "task_name", "cluster_resources", "submitted_at", "start_at", "end_at", "user_name",
    "cloud", "region", "zone",
)  # fmt: skip
REQUEST_FIELDS: Final = ["request_id", "name", "status", "cluster_name", "created_at"]
_OWN: Final = frozenset({"slurm", "kubernetes", "ssh"})
_REQUEST_NAMES: Final = "sky."
_OVER: Final = frozenset(
    {"SUCCEEDED", "CANCELLED", "FAILED", "FAILED_SETUP", "FAILED_PRECHECKS", "FAILED_NO_RESOURCE", "FAILED_CONTROLLER"}
)


def cluster(record: Any) -> ClusterRow:
    """Read one cluster of `sky status`."""
    handle = record.handle
    resources = getattr(handle, "launched_resources", None)
    nodes = int(getattr(handle, "launched_nodes", None) or record.nodes or 1)
    infra = _infra(resources) or _joined(record.cloud, record.region)
    return ClusterRow(
        name=record.name,
        status=_word(record.status),
        launching=record.init_kind == "launching",
        reason=redact(str(record.init_status_reason or record.last_event or "")),
        nodes=nodes,
        infra=infra,
        given=_given(nodes, resources, infra),
        launched_at=_number(record.launched_at),
        is_managed=bool(record.is_managed),
        user=record.user_name or "",
        name_on_cloud=record.cluster_name_on_cloud or getattr(handle, "cluster_name_on_cloud", None) or "",
    )


def managed(records: Iterable[Any], cluster_of: Callable[[str, int], str]) -> list[ManagedRow]:
    """Read managed jobs; of a pipeline, the first task that is not over, else the last.

    `cluster_of` is how SkyPilot calls the cluster of a task and job.
    """
    found: dict[int, ManagedRow] = {}
    for record in sorted(records, key=lambda one: (one.job_id or 0, one.task_id or 0)):
        before = found.get(record.job_id)
        if before is None or before.status in _OVER:
            found[record.job_id] = _managed(record, cluster_of)
    return list(found.values())


def _managed(record: Any, cluster_of: Callable[[str, int], str]) -> ManagedRow:
    infra = _joined(record.cloud, record.region)
    given = str(record.cluster_resources or "")
    return ManagedRow(
        id=int(record.job_id),
        name=record.job_name or "",
        status=_word(record.status),
        reason=redact(str(record.failure_reason or record.details or "")),
        given="" if given in ("", "-") else f"{given} {infra}".strip(),
        infra=infra,
        recoveries=int(record.recovery_count or 0),
        cluster=record.current_cluster_name or cluster_of(record.task_name or record.job_name or "", record.job_id),
        is_done=record.schedule_state == "DONE",
        submitted_at=_number(record.submitted_at),
        started_at=_number(record.start_at),
        ended_at=_number(record.end_at),
        user=record.user_name or "",
    )


def queued(record: Any) -> QueueRow:
    """Read one job of a cluster's queue."""
    return QueueRow(
        id=int(record.job_id),
        name=record.job_name or "",
        status=_word(record.status),
        submitted_at=_number(record.submitted_at),
        started_at=_number(record.start_at),
        ended_at=_number(record.end_at),
    )


def request(record: Mapping[str, Any]) -> RequestRow:
    """Read one request of `sky api status`."""
    return RequestRow(
        id=str(record["request_id"]),
        name=str(record["name"]).removeprefix(_REQUEST_NAMES),
        status=str(record["status"]),
        cluster=record.get("cluster_name") or "",
        created_at=_number(record.get("created_at")),
    )


def given(record: Mapping[str, Any]) -> GivenRow:
    """Read what was given for one cluster, and its price, from a line of the cost report."""
    resources = record.get("resources")
    nodes = int(record.get("num_nodes") or 1)
    seconds, cost = float(record.get("duration") or 0.0), float(record.get("total_cost") or 0.0)
    # Where the server cannot price it, it says 0.
    price = cost / seconds * 3600 if seconds > 0 and cost > 0 else None
    return GivenRow(
        cluster=str(record["name"]),
        given=_given(nodes, resources, _infra(resources)),
        price_per_hour=None if price is None else round(price, 6),
        nodes=nodes,
        launched_at=_number(record.get("launched_at")),
    )


def gpu(offer: Any) -> GpuRow:
    """Read one way to get an accelerator."""
    return GpuRow(
        name=offer.accelerator_name,
        count=offer.accelerator_count,
        infra=str(offer.cloud).lower(),
        region=offer.region or "",
        instance=offer.instance_type or "",
        gpu_memory=_number(offer.device_memory) or None,
        cpus=_number(offer.cpu_count),
        memory=_number(offer.memory),
        price=_price(offer.price),
        # A cluster of one's own has no spot machines; their price there is that of the others.
        spot_price=None if str(offer.cloud).lower() in _OWN else _price(offer.spot_price),
    )


def free(infra: str, found: Iterable[Any]) -> list[FreeRow]:
    """Read what is free now on one's own clusters: of each its name and its accelerators as (name, counts, all, free).

    A third entry, where there is one, says why a cluster could not be asked.
    """
    rows: list[FreeRow] = []
    for name, accelerators, *_ in found:
        for gpu_name, counts, capacity, available in accelerators:
            per_node = tuple(int(count) for count in counts)
            rows.append(FreeRow(str(gpu_name), f"{infra}/{name}", int(capacity), int(available), per_node))
    return rows


#: A row of the optimizer's table: infra with its region, instance, CPUs, memory, GPUs, dollars an hour, chosen or not.
_CANDIDATE: Final = re.compile(
    r"^ (?P<cloud>\S+) \((?P<region>[^)]+)\)\s+(?P<instance>\S+)\s+\S+\s+\S+\s+(?P<gpus>\S+)\s+"
    r"(?P<price>[\d,.]+)\s*(?P<mark>✔?)\s*$"
)
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_NODES: Final = re.compile(r"^Considered resources \((\d+) nodes?\):")


def candidates(text: str) -> list[PricedRow]:
    """Read the optimizer's table, cheapest first but what it chose before all. A price of 0 is one nobody knows."""
    rows: list[tuple[bool, PricedRow]] = []
    nodes = 1
    for line in _COLOUR.sub("", text).splitlines():
        if (said := _NODES.match(line)) is not None:
            nodes, rows = int(said[1]), []
        elif (found := _CANDIDATE.match(line)) is not None:
            infra = _joined(found["cloud"], found["region"])
            instance = "" if found["instance"] == "-" else found["instance"]
            what = next(one for one in (found["gpus"], instance, "CPU") if one not in ("", "-"))
            price = float(found["price"].replace(",", "")) or None
            rows.append((not found["mark"], PricedRow(infra, instance, price, f"{nodes}x {what} {infra}")))
    return [row for _, row in sorted(rows, key=lambda one: one[0])]


def _given(nodes: int, resources: Any, infra: str) -> str:
    """`2x H100:8 slurm/loopback`; without accelerators the type of machine is named."""
    if resources is None:
        return ""
    accelerators: Mapping[str, Any] = getattr(resources, "accelerators", None) or {}
    what = " ".join(f"{name}:{count:g}" for name, count in accelerators.items())
    what = what or str(getattr(resources, "instance_type", None) or "CPU")
    spot = " spot" if getattr(resources, "use_spot", False) else ""
    return f"{nodes}x {what}{spot} {infra}".strip()


def _infra(resources: Any) -> str:
    if resources is None:
        return ""
    return _joined(getattr(resources, "cloud", None), getattr(resources, "region", None))


def _joined(cloud: Any, region: Any) -> str:
    place = str(cloud or "").lower()
    place = {"kubernetes": "k8s"}.get(place, place)
    if place in ("", "-"):
        return ""
    return place if region in (None, "", "-") else f"{place}/{region}"


def _word(status: Any) -> str:
    return str(getattr(status, "value", status))


def _number(value: Any) -> float | None:
    """A number, None for what is missing; SkyPilot writes NaN for some of it."""
    if value is None:
        return None
    number = float(value)
    return None if number != number else number


def _price(value: Any) -> float | None:
    """A price; 0 stands for unknown there."""
    return _number(value) or None

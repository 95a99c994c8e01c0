"""What is said between SkyPilot's gateway and those who use it: plain values, without a type of SkyPilot's.

Times are Unix seconds, prices dollars an hour for all nodes together; None means unknown. States are SkyPilot's words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ainfinity.core.exceptions import ComputeUnreachable, NotFound, Refused

Mode = Literal["cluster", "managed"]


class Gone(NotFound):
    """SkyPilot has no such cluster or job, or none that is up."""

    code = "gone"


class RequestLost(ComputeUnreachable):
    """The API server does not know a request that it took: it was restarted. What it had begun goes on without it."""


class SkyRefused(Refused):
    """SkyPilot or a cloud will not do this. `kind` says why in one word, for example `no_resources`."""

    def __init__(self, message: str, *, hint: str = "", field: str = "", kind: str = "refused") -> None:
        super().__init__(message, hint=hint, field=field)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the API server answers. `problem` says in words why it is of no use; "" where it is."""

    endpoint: str
    #: Whether it is the one on this machine, which we may start.
    local: bool
    problem: str = ""
    hint: str = ""
    #: Whether anything answered at all.
    reachable: bool = True
    version: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """One cluster. `status` is INIT, UP, STOPPED, AUTOSTOPPING or PENDING."""

    name: str
    status: str
    #: Whether an INIT cluster is being made, and not one that was found unhealthy.
    launching: bool = False
    #: Why it is as it is, in SkyPilot's words.
    reason: str = ""
    nodes: int = 1
    #: As `slurm/loopback`, `aws/us-east-1`; "" while nothing was given.
    infra: str = ""
    #: What was given, in words, as `2x H100:8 slurm/loopback`.
    given: str = ""
    price_per_hour: float | None = None
    launched_at: float | None = None
    #: Whether it belongs to a managed job.
    is_managed: bool = False
    user: str = ""
    name_on_cloud: str = ""


@dataclass(frozen=True, slots=True)
class ManagedRow:
    """One managed job; of a pipeline, its first task that is not over, else its last one."""

    id: int
    name: str
    status: str
    reason: str = ""
    given: str = ""
    infra: str = ""
    price_per_hour: float | None = None
    recoveries: int = 0
    #: The cluster that it runs on now; "" for none.
    cluster: str = ""
    #: Whether its controller is through with it, cleaning up included.
    is_done: bool = False
    submitted_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    user: str = ""


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One job in the queue of a cluster."""

    id: int
    name: str
    status: str
    submitted_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One request to the API server: `status` is PENDING, RUNNING, WAITING, SUCCEEDED, FAILED or CANCELLED."""

    id: str
    name: str
    status: str
    #: The cluster that it is about; "" where it is about none, or about a managed job.
    cluster: str = ""
    created_at: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in ("SUCCEEDED", "FAILED", "CANCELLED")


@dataclass(frozen=True, slots=True)
class GpuRow:
    """One way to get an accelerator. Prices are for one node with `count` of them."""

    name: str
    count: float
    infra: str
    region: str = ""
    instance: str = ""
    #: GiB of one accelerator, CPUs and GiB of the node.
    gpu_memory: float | None = None
    cpus: float | None = None
    memory: float | None = None
    price: float | None = None
    spot_price: float | None = None


@dataclass(frozen=True, slots=True)
class FreeRow:
    """How many of an accelerator a cluster of one's own has, and has free now."""

    name: str
    infra: str
    total: int
    free: int
    #: How many one node can give at once.
    per_node: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class PricedRow:
    """One candidate for a task as SkyPilot's optimizer orders them; the first is the one it would take."""

    infra: str
    instance: str
    price_per_hour: float | None
    given: str = ""


@dataclass(frozen=True, slots=True)
class GivenRow:
    """What was given for one cluster."""

    cluster: str
    given: str
    price_per_hour: float | None
    nodes: int = 1
    launched_at: float | None = None


@dataclass(frozen=True, slots=True)
class LogSource:
    """Where the log of an attempt can be had, as far as that is known yet."""

    mode: Mode
    #: The request that provisions and sets up, whose output comes first; "" where it is unknown or over.
    request_id: str = ""
    cluster: str = ""
    #: The job in the cluster's queue, or the managed job; None before there is one.
    job_id: int | None = None


@dataclass(frozen=True, slots=True)
class LogEnd:
    """A log has been read to its end. `status` is the job's last one as the log itself tells it, or ""."""

    status: str = ""
    exit_code: int | None = None


class LogFollower(Protocol):
    """Brings logs home, each attempt's into its `log.txt`, on threads of its own. No method waits for a network."""

    def follow(self, name: str, source: LogSource) -> None:
        """Begin to follow, or go on with what is known now; repeated calls cost nothing."""
        ...

    def ended(self, name: str) -> LogEnd | None:
        """Return how the log ended once all of it is in the file; None before that."""
        ...

    def drop(self, name: str) -> None:
        """Stop following; what is in the file stays."""
        ...

    def close(self) -> None:
        """End all threads."""
        ...


class Transfer(Protocol):
    """Brings an attempt's files home, and tells its machine things. Its calls may take long."""

    def verify(self, name: str, job_id: str, storage: str, files: Sequence[Mapping[str, Any]]) -> str:
        """See to it that the named files lie in a durable place as they were written; "" or what is wrong."""
        ...

    def extend(self, name: str, cluster: str, deadline: float | None) -> None:
        """Write the attempt's new deadline where its machine looks for it."""
        ...


class Sky(Protocol):
    """What `SkyPilotCompute` asks of the gateway.

    Each call is limited in time, and raises ComputeUnreachable where no answer came, which says nothing of the wish.
    """

    def clusters(self, names: Sequence[str] | None = None, *, refresh: bool = False) -> list[ClusterRow]:
        """Return these clusters, or all but those of managed jobs; `refresh` asks the clouds about their machines."""
        ...

    def managed_jobs(self, *, ids: Sequence[int] | None = None, name: str = "", live: bool = False) -> list[ManagedRow]:
        """Return these managed jobs, those whose name holds `name`, or all; `live`: of those the ones not over."""
        ...

    def queue(self, cluster: str) -> list[QueueRow]:
        """Return the jobs of a cluster, oldest first. Errors: Gone."""
        ...

    def requests(self, cluster: str = "") -> list[RequestRow]:
        """Return the requests that are not over; those about a cluster, over or not."""
        ...

    def given(self, clusters: Sequence[str]) -> Mapping[str, GivenRow]:
        """Return what was given for clusters that are there, those of managed jobs included."""
        ...

    def launch(
        self, task: Mapping[str, Any], name: str, secrets: Mapping[str, str], idle_minutes: int | None = None
    ) -> str:
        """Send a task to a cluster that it makes if need be; return the request, which goes on. Errors: SkyRefused.

        With `idle_minutes` the cluster ends itself after so long without a job, whatever the task says.
        """
        ...

    def launch_managed(self, task: Mapping[str, Any], name: str, secrets: Mapping[str, str]) -> str:
        """Send a task as a managed job; return the request, which goes on. Errors: SkyRefused."""
        ...

    def result(self, request_id: str) -> int | None:
        """Return the number of the job that a launch which is over made. Errors: SkyRefused, RequestLost."""
        ...

    def cancel_request(self, request_id: str) -> None:
        """Have the server drop a request; what it began stays."""
        ...

    def down(self, cluster: str) -> None:
        """End a cluster and wait until it is gone. One that is not there is."""
        ...

    def cancel_managed(self, job_id: int) -> None:
        """Have a managed job's controller end it; `is_done` tells when it has."""
        ...

    def can_manage(self) -> bool:
        """Whether managed jobs can run without a machine made for their controller alone."""
        ...


#: Raw lines of a stream, their ends kept.
LineStream = Iterator[str]

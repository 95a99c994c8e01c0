"""SkyPilot's API server as its gateway shows it, in memory. It does what the real one does, and refuses so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ainfinity.compute.remote.chores import Chores
from ainfinity.compute.remote.rows import (
    ClusterRow,
    GivenRow,
    Gone,
    ManagedRow,
    QueueRow,
    RequestLost,
    RequestRow,
    SkyRefused,
)
from ainfinity.core.clock import Clock
from ainfinity.core.exceptions import ComputeUnreachable

OVER = ("SUCCEEDED", "FAILED", "CANCELLED")
JOB_OVER = (*OVER, "FAILED_SETUP", "FAILED_DRIVER")
MANAGED_OVER = (*OVER, "FAILED_SETUP", "FAILED_PRECHECKS", "FAILED_NO_RESOURCE", "FAILED_CONTROLLER")


@dataclass
class FakeJob:
    id: int
    name: str
    begins: float
    deadline: float | None = None
    end: str = ""

    def status(self, now: float) -> str:
        if self.end:
            return self.end
        if self.deadline is not None and now >= self.deadline:
            self.end = "FAILED"
            return self.end
        return "RUNNING" if now >= self.begins else "SETTING_UP"


@dataclass
class FakeCluster:
    name: str
    status: str = "INIT"
    jobs: list[FakeJob] = field(default_factory=list[FakeJob])
    #: After a crash of the server: up as soon as somebody refreshes it.
    is_stale: bool = False
    launched_at: float = 0.0
    unhealthy: bool = False


@dataclass
class FakeRequest:
    id: str
    kind: str
    name: str
    begun: float
    deadline: float | None = None
    status: str = "RUNNING"
    job: int | None = None
    fault: Exception | None = None


@dataclass
class FakeManaged:
    id: int
    name: str
    status: str = "PENDING"
    reason: str = ""
    recoveries: int = 0
    done: bool = False
    ran: int = 0


class FakeSky:
    """`provision` and `setup` are how long those take, in seconds of the clock."""

    def __init__(self, clock: Clock, provision: float = 0.3, setup: float = 0.1) -> None:
        self.clock = clock
        self.provision = provision
        self.setup = setup
        self.machines: dict[str, FakeCluster] = {}
        self.jobs: dict[int, FakeManaged] = {}
        self.asked: dict[str, FakeRequest] = {}
        #: How often a job of that name was started, on whatever cluster.
        self.started: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.is_down = False
        self.manages = True
        self.refusal: SkyRefused | None = None
        self.launch_fault: Exception | None = None
        #: Called at the next call of that name: before it takes effect, and after it, when its reply is on the way.
        self.before: dict[str, Callable[[], None]] = {}
        self.after: dict[str, Callable[[], None]] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self.tasks: dict[str, Mapping[str, Any]] = {}
        self.idle_minutes: dict[str, int | None] = {}
        self._count = 0

    # Its own life.

    def kill(self) -> None:
        """Kill the server with -9 and start it again: requests are forgotten, and what they had begun stays."""
        self._advance()
        self.asked.clear()
        for machine in self.machines.values():
            if machine.status == "INIT":
                machine.is_stale = True

    def _advance(self) -> None:
        now = self.clock.now()
        for request in self.asked.values():
            if request.status != "RUNNING":
                continue
            if self.launch_fault is not None:
                request.status, request.fault = "FAILED", self.launch_fault
            elif request.kind == "jobs.launch":
                self._advance_managed(request, now)
            elif now >= request.begun:
                self._advance_launch(request, now)

    def _advance_launch(self, request: FakeRequest, now: float) -> None:
        machine = self.machines.setdefault(request.name, FakeCluster(request.name, launched_at=now))
        if now >= request.begun + self.provision:
            machine.status, machine.is_stale = "UP", False
            job = FakeJob(len(machine.jobs) + 1, request.name, now + self.setup, request.deadline)
            machine.jobs.append(job)
            self.started[request.name] += 1
            request.status, request.job = "SUCCEEDED", job.id

    def _advance_managed(self, request: FakeRequest, now: float) -> None:
        if now >= request.begun + self.provision:
            number = len(self.jobs) + 1
            self.jobs[number] = FakeManaged(number, request.name, "STARTING")
            self.started[request.name] += 1
            request.status, request.job = "SUCCEEDED", number

    def _call(self, name: str) -> None:
        self.calls[name] += 1
        if name in self.before:
            self.before.pop(name)()
        if self.is_down:
            raise ComputeUnreachable("SkyPilot's API server cannot be reached: Connection refused.")
        self._advance()

    def _reply(self, name: str) -> None:
        if name in self.after:
            self.after.pop(name)()

    # The gateway.

    def clusters(self, names: Sequence[str] | None = None, *, refresh: bool = False) -> list[ClusterRow]:
        self._call("refresh" if refresh else "clusters")
        rows: list[ClusterRow] = []
        for machine in list(self.machines.values()):
            if names is not None and machine.name not in names:
                continue
            if refresh and machine.is_stale:
                machine.status, machine.is_stale = "UP", False
            rows.append(
                ClusterRow(
                    machine.name,
                    machine.status,
                    launching=machine.status == "INIT" and not machine.unhealthy,
                    given="1x H100:1 slurm/fake",
                    launched_at=machine.launched_at,
                )
            )
        return rows

    def managed_jobs(self, *, ids: Sequence[int] | None = None, name: str = "", live: bool = False) -> list[ManagedRow]:
        self._call("managed_jobs")
        wanted = None if ids is None else set(ids)
        return [
            ManagedRow(
                job.id,
                job.name,
                job.status,
                job.reason,
                "1x[H100:1] slurm/fake",
                recoveries=job.recoveries,
                cluster=f"{job.name[:20]}-{job.id}",
                is_done=job.done,
            )
            for job in self.jobs.values()
            if (wanted is None or job.id in wanted) and name in job.name and not (live and job.status in MANAGED_OVER)
        ]

    def queue(self, cluster: str) -> list[QueueRow]:
        self._call("queue")
        machine = self.machines.get(cluster)
        if machine is None or machine.status != "UP":
            raise Gone("The cluster is not up.")
        now = self.clock.now()
        return [QueueRow(job.id, job.name, job.status(now)) for job in machine.jobs]

    def requests(self, cluster: str = "") -> list[RequestRow]:
        self._call("requests")
        return [
            RequestRow(one.id, one.kind, one.status, one.name if one.kind == "launch" else "sky-jobs-controller")
            for one in self.asked.values()
            if (one.kind == "launch" and one.name == cluster if cluster else one.status not in OVER)
        ]

    def given(self, clusters: Sequence[str]) -> Mapping[str, GivenRow]:
        self._call("given")
        return {name: GivenRow(name, "1x H100:1 slurm/fake", 2.5) for name in clusters}

    def launch(
        self, task: Mapping[str, Any], name: str, secrets: Mapping[str, str], idle_minutes: int | None = None
    ) -> str:
        self.idle_minutes[name] = idle_minutes
        return self._launch("launch", task, name, secrets)

    def launch_managed(self, task: Mapping[str, Any], name: str, secrets: Mapping[str, str]) -> str:
        return self._launch("jobs.launch", task, name, secrets)

    def _launch(self, kind: str, task: Mapping[str, Any], name: str, secrets: Mapping[str, str]) -> str:
        self._call("launch")
        if self.refusal is not None:
            raise self.refusal
        self._count += 1
        deadline = task.get("envs", {}).get("AINFINITY_DEADLINE")
        request = FakeRequest(f"r{self._count}", kind, name, self.clock.now(), float(deadline) if deadline else None)
        self.asked[request.id] = request
        self.tasks[name], self.secrets[name] = task, dict(secrets)
        self._advance()
        self._reply("launch")
        return request.id

    def result(self, request_id: str) -> int | None:
        self._call("result")
        request = self.asked.get(request_id)
        if request is None:
            raise RequestLost("SkyPilot's API server no longer knows a request that it took.")
        if request.status == "RUNNING":
            raise ComputeUnreachable("SkyPilot's API server did not answer within 100 s.")
        if request.fault is not None:
            raise request.fault
        if request.status == "CANCELLED":
            raise SkyRefused("The launch was cancelled at SkyPilot's API server.", kind="cancelled")
        return request.job

    def cancel_request(self, request_id: str) -> None:
        self._call("cancel_request")
        request = self.asked.get(request_id)
        if request is not None and request.status == "RUNNING":
            request.status = "CANCELLED"  # and its cluster stays INIT

    def down(self, cluster: str) -> None:
        self._call("down")
        self.machines.pop(cluster, None)
        self._reply("down")

    def cancel_managed(self, job_id: int) -> None:
        self._call("cancel_managed")
        job = self.jobs[job_id]
        if job.status not in MANAGED_OVER:
            job.status = "CANCELLING"

    def can_manage(self) -> bool:
        self._call("can_manage")
        return self.manages

    # What truly is.

    def alive(self, name: str) -> int:
        """How many copies of an attempt's job run now."""
        self._advance()
        now = self.clock.now()
        here = [job for one in self.machines.values() for job in one.jobs if job.name == name]
        copies = sum(job.status(now) == "RUNNING" for job in here)
        return copies + sum(job.name == name and job.status in ("RUNNING", "RECOVERING") for job in self.jobs.values())

    def set_deadline(self, name: str, deadline: float | None) -> None:
        """Write an attempt's deadline where its machine looks for it, or will."""
        for request in self.asked.values():
            if request.name == name:
                request.deadline = deadline
        for job in self.machines[name].jobs if name in self.machines else ():
            job.deadline = deadline

    def job_of(self, name: str) -> FakeJob:
        """The only job on the attempt's cluster."""
        (job,) = self.machines[name].jobs
        return job


class InlineChores(Chores):
    """Does each piece of work at once, so that a test's order is fixed. What fails is asked for again, as ever."""

    def begin(self, key: str, work: Callable[[], None]) -> bool:
        self._room.acquire()
        with self._lock:
            self._running.add(key)
        self._run(key, work)
        return True

"""`SkyPilotCompute` over the fake of SkyPilot, with logs that are written when a job runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ainfinity.compute.outputs import find_fault
from ainfinity.compute.port import LaunchRequest
from ainfinity.compute.remote.compute import SkyPilotCompute
from ainfinity.compute.remote.rows import LogEnd, LogSource
from ainfinity.core.config import Settings
from ainfinity.core.exceptions import ComputeUnreachable
from tests.compute.remote.fake_sky import JOB_OVER, FakeSky, InlineChores


@dataclass
class StandingClock:
    """A clock that moves when told."""

    at: float = 1e9

    def now(self) -> float:
        return self.at


class FakeFollower:
    """Writes `hello` into the log of each job that runs, and says how a job ended whose log it has."""

    def __init__(self, sky: FakeSky, folder: Path) -> None:
        self.sky = sky
        self.folder = folder
        self.sources: dict[str, LogSource] = {}
        self.ends: dict[str, LogEnd] = {}

    def follow(self, name: str, source: LogSource) -> None:
        self.sources[name] = source
        now = self.sky.clock.now()
        machine = self.sky.machines.get(source.cluster)
        if source.mode != "cluster" or source.job_id is None:
            return
        if machine is None:
            self.ends.setdefault(name, LogEnd())  # its log is gone with it
            return
        job = next((one for one in machine.jobs if one.id == source.job_id), None)
        if job is None or now < job.begins:
            return
        log = self.folder / name / "log.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("hello\nworld\n")
        status = job.status(now)
        if status in JOB_OVER:
            self.ends[name] = LogEnd(status, {"SUCCEEDED": 0}.get(status, 1))

    def ended(self, name: str) -> LogEnd | None:
        return self.ends.get(name)

    def drop(self, name: str) -> None:
        self.sources.pop(name, None)

    def close(self) -> None:
        self.sources.clear()


@dataclass
class FakeTransfer:
    """Output lies in a folder here."""

    folder: Path
    sky: FakeSky
    told: dict[str, float | None] = field(default_factory=dict[str, float | None])
    is_down: bool = False

    def verify(self, name: str, job_id: str, storage: str, files: Sequence[Mapping[str, Any]]) -> str:
        return find_fault(self.folder, files)

    def extend(self, name: str, cluster: str, deadline: float | None) -> None:
        if self.is_down:
            raise ComputeUnreachable("The machine does not answer.")
        self.told[name] = deadline
        self.sky.set_deadline(name, deadline)


SPEC: Mapping[str, Any] = {
    "name": "first",
    "recipe": {"model": "tiny", "data": "/dev/null"},
    "resources": {"infra": "slurm/fake", "gpus": "H100:1", "mode": "cluster"},
}


class RemotePlace:
    """One installation whose attempts run elsewhere. `backend` is what a restarted worker makes."""

    def __init__(self, root: Path, clock: StandingClock | None = None) -> None:
        self.clock = clock or StandingClock()
        self.settings = Settings(data_dir=root / "data", config_dir=root / "config")
        self.sky = FakeSky(self.clock)
        self.output = root / "output"
        self.output.mkdir(parents=True, exist_ok=True)
        self.transfer = FakeTransfer(self.output, self.sky)

    def backend(self, needed: Callable[[], bool] = lambda: True) -> SkyPilotCompute:
        follower = FakeFollower(self.sky, self.settings.attempts_dir)
        return SkyPilotCompute(
            self.settings, self.clock, self.sky, follower, self.transfer, needed, chores=InlineChores()
        )

    def request(self, name: str, deadline: float | None = None, **resources: Any) -> LaunchRequest:
        spec = {**SPEC, "resources": {**SPEC["resources"], **resources}}
        return LaunchRequest(
            name=name,
            job_id="abcdefghij",
            attempt=1,
            recipe={},
            output_dir="",
            checkpoint_dir="",
            secrets={"TOKEN": "s3cret-value"},
            deadline=deadline,
            spec=spec,
        )

    def raw(self, name: str, **resources: Any) -> LaunchRequest:
        """A request for a SkyPilot task as it is, which `auto` runs managed."""
        found = {"infra": "slurm/fake", **resources}
        spec = {"name": "first", "sky": {"run": "true"}, "resources": found}
        return LaunchRequest(
            name=name, job_id="abcdefghij", attempt=1, recipe={}, output_dir="", checkpoint_dir="", spec=spec
        )

"""Accelerators, SkyPilot's API server and the way into a machine, from answers of what would ask SkyPilot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ainfinity.core.exceptions import ComputeUnreachable, NotAllowed, NotSupported, Refused, UsageError, WrongState
from ainfinity.schema.event import EventType
from ainfinity.schema.states import JobState
from ainfinity.services.machines import MachineService
from ainfinity.services.outside import OutsideService
from ainfinity.services.training_service import TrainingService
from ainfinity.store.jobs import AUDIT
from tests.services.workplace import ADMIN, VIEWER, Workplace

GPUS: list[dict[str, Any]] = [
    {"name": "H100", "count": 8, "infra": "aws", "region": "us-east-1", "price": 98.3, "spot_price": 31.0},
    {"name": "H100", "count": 8, "infra": "gcp", "region": "us-central1", "price": None},
    {"name": "L4", "count": 1, "infra": "gcp", "region": "us-central1", "price": 0.7, "gpu_memory": 24},
]
FREE = [{"name": "H100", "infra": "slurm/lab", "total": 16, "free": 5, "per_node": [1, 2, 4, 8]}]
HEALTHY = {"endpoint": "http://127.0.0.1:46580", "local": True, "problem": "", "reachable": True, "version": "0.14.1"}
DOWN = HEALTHY | {"problem": "Nothing answers.", "reachable": False}


class Sky:
    """Answers as `python -m ainfinity.compute.ask` does, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.health: dict[str, Any] = HEALTHY
        self.gpus, self.free = GPUS, FREE

    def __call__(self, question: str, arguments: Mapping[str, Any], limit: float) -> Any:
        self.asked.append((question, arguments))
        match question:
            case "gpus":
                return {"gpus": self.gpus, "free": self.free}
            case "health":
                return self.health
            case "start":
                return HEALTHY
            case "ssh":
                return {"config": "/cache/ssh/config", "host": arguments["name"]}
            case _:
                raise ComputeUnreachable(f"asked {question}")


@pytest.fixture
def sky() -> Sky:
    return Sky()


@pytest.fixture
def machines(work: Workplace, sky: Sky) -> MachineService:
    work.service = TrainingService(work.store, backends=("local", "skypilot"), jobs_dir=work.settings.jobs_dir)
    return MachineService(work.store, OutsideService(work.settings.cache_dir, work.clock, sky))


def test_offers_are_the_cheapest_first_and_unknown_prices_last(machines: MachineService) -> None:
    found = machines.gpus("h100")
    assert [(offer.infra, offer.price_per_hour, offer.free) for offer in found.offers] == [
        ("aws", 98.3, None),
        ("gcp", None, None),
        ("slurm/lab", None, 5),
    ]
    assert found.offers[0].spot_price_per_hour == 31.0
    assert found.error == {}
    assert len(machines.gpus().offers) == 4
    assert [offer.name for offer in machines.gpus("L4:1").offers] == ["L4"]
    assert machines.gpus("L4:8").offers == ()
    assert {offer.infra for offer in machines.gpus(infra="gcp").offers} == {"gcp"}
    assert [offer.infra for offer in machines.gpus(infra="aws/us-east-1").offers] == ["aws"]
    assert [offer.infra for offer in machines.gpus(infra="slurm").offers] == ["slurm/lab"]
    with pytest.raises(UsageError):
        machines.gpus("H100:many")


def test_what_is_free_is_told_with_the_price_where_only_one_cluster_can_be_meant(
    machines: MachineService, work: Workplace, sky: Sky
) -> None:
    priced = {"name": "H100", "count": 8, "infra": "slurm", "region": "gpu*", "price": 20.0, "spot_price": 20.0}
    sky.gpus = [priced]
    (offer,) = machines.gpus(refresh=True).offers
    assert (offer.infra, offer.region, offer.price_per_hour) == ("slurm/lab", "", 20.0)
    assert (offer.free, offer.total, offer.spot_price_per_hour) == (5, 16, None)
    sky.free = [*FREE, FREE[0] | {"infra": "slurm/other", "free": 0}]
    work.clock.move(1)
    found = {offer.infra: offer.free for offer in machines.gpus(refresh=True).offers}
    assert found == {"slurm": None, "slurm/lab": 5, "slurm/other": 0}


def test_offers_are_asked_for_once_and_then_known_for_a_while(
    machines: MachineService, work: Workplace, sky: Sky
) -> None:
    machines.gpus()
    machines.gpus("L4")
    assert len(sky.asked) == 1
    work.clock.move(1)
    machines.gpus(refresh=True)
    assert len(sky.asked) == 2
    work.clock.move(3600)
    machines.gpus()
    assert len(sky.asked) == 3


def test_the_api_server_is_started_on_a_word_and_that_is_recorded(
    machines: MachineService, work: Workplace, sky: Sky
) -> None:
    assert machines.start_sky(ADMIN).problem == ""
    assert [question for question, _ in sky.asked] == ["health"], "a healthy one is left alone"
    work.clock.move(1)
    sky.health = DOWN
    assert machines.sky_status().problem == "Nothing answers."
    with pytest.raises(NotAllowed):
        machines.start_sky(VIEWER)
    work.clock.move(1)
    assert machines.start_sky(ADMIN).problem == ""
    with work.store.read() as connection:
        (row,) = connection.execute(AUDIT.select().where(AUDIT.c.action == "start sky"))
    assert (row.actor, row.subject) == (ADMIN.name, DOWN["endpoint"])
    work.clock.move(1)
    sky.health = DOWN | {"local": False, "endpoint": "https://sky.example.org"}
    with pytest.raises(Refused, match=r"sky\.example\.org"):
        machines.start_sky(ADMIN)


def remote(work: Workplace, state: JobState) -> str:
    return work.in_state(state, f"job-{state}", resources__infra="slurm/lab")


def test_a_shell_needs_a_machine(machines: MachineService, work: Workplace, sky: Sky) -> None:
    with pytest.raises(NotSupported, match="this machine"):
        machines.shell(work.in_state(JobState.RUNNING))
    for state in (JobState.QUEUED, JobState.FAILED):
        with pytest.raises(WrongState, match="no machine"):
            machines.shell(remote(work, state))
    assert sky.asked == []
    running = remote(work, JobState.RUNNING)
    shell = machines.shell(running)
    assert shell.argv == ("ssh", "-F", "/cache/ssh/config", "-o", "LogLevel=ERROR", f"ain-{running}-a1")
    awkward = ["sh", "-c", "echo 'a b' \"$HOME\" ; exit 3"]
    assert machines.shell(running, awkward, node=1).argv[-1] == """sh -c 'echo '"'"'a b'"'"' "$HOME" ; exit 3'"""
    assert sky.asked[-1][1]["node"] == 1


def test_nobody_is_let_into_the_machine_of_a_managed_job(machines: MachineService, work: Workplace, sky: Sky) -> None:
    job = work.launch("managed", resources__infra="slurm/lab").id
    launched = (EventType.ATTEMPT_LAUNCHED, {"handle": f"managed:ain-{job}-a1"})
    work.record(job, EventType.ATTEMPT_INTENDED, launched, EventType.ATTEMPT_RUNNING)
    with pytest.raises(NotSupported, match="managed job"):
        machines.shell(job)
    assert sky.asked == []


def test_a_kept_machine_can_be_reached_until_it_goes(machines: MachineService, work: Workplace) -> None:
    job = work.launch("kept", resources__infra="slurm/lab").id
    kept = (EventType.ATTEMPT_KEPT, {"until": work.clock.now() + 3600, "reason": "keep_on_failure"})
    begun = (EventType.ATTEMPT_INTENDED, EventType.ATTEMPT_LAUNCHED, EventType.ATTEMPT_RUNNING)
    work.record(job, *begun, kept)
    assert machines.shell(job).machine == f"ain-{job}-a1"
    work.record(job, EventType.ATTEMPT_FAILED, EventType.FAILED)
    with pytest.raises(WrongState):
        machines.shell(job)

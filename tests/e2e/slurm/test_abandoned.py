"""Worker and front gone for good: the machine ends itself soon after its deadline, and not before.

The first test runs first of all and the second late, for in between it only takes time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.slurm.desk import Desk
from tests.e2e.slurm.loopback import Loopback, wait_for

#: Seconds from the launch on: more than a launch takes on a busy machine.
LIMIT = 240
FOREVER = "start()\nwait('end')\n"


@dataclass
class Abandoned:
    """What somebody left and will not come back to. `control` has no deadline."""

    desk: Desk
    cluster: str
    managed: str
    control: str


@pytest.fixture(scope="session")
def abandoned(loopback: Loopback, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Abandoned]:
    desk = Desk(loopback, tmp_path_factory.mktemp("abandoned"), "abandoned")
    desk.extra["AINFINITY_IDLE_DOWN"] = "60"
    limit = {"policy__max_duration": LIMIT}
    try:
        made = Abandoned(
            desk,
            desk.launch("limited", desk.played("limited", FOREVER, **limit)),
            desk.launch("moving", desk.played("moving", FOREVER, resources__storage=str(desk.shared), **limit)),
            desk.launch("control", desk.played("control", FOREVER)),
        )
        for name in ("limited", "moving", "control"):
            desk.reached(name, "end")
        desk.kill_workers()
        yield made
    finally:
        assert desk.close() == []


def test_worker_and_front_go_for_good(abandoned: Abandoned) -> None:
    assert len(abandoned.desk.slurm_jobs()) == 3
    assert list(abandoned.desk.processes()) == []


def test_their_machines_went_soon_after_the_deadline_and_the_control_did_not(abandoned: Abandoned) -> None:
    desk = abandoned.desk
    kept, *limited = (desk.attempt(job) for job in (abandoned.control, abandoned.cluster, abandoned.managed))
    wait_for(lambda: not any(desk.loopback.squeue(one.name) for one in limited), "the machines to end themselves")
    assert len(desk.loopback.squeue(kept.name)) == 1
    assert [desk.row(job).state for job in (abandoned.control, abandoned.cluster)] == ["running", "running"]

    desk.run("cancel", abandoned.control)  # somebody comes back after all
    desk.until(abandoned.control, "cancelled")
    for job in (abandoned.cluster, abandoned.managed):
        row = desk.until(job, "failed")
        assert "deadline" in row.error_message or "max_duration" in row.error_message, row
    assert desk.slurm_jobs() == []

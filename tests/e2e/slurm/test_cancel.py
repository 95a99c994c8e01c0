"""Cancel, at whatever phase: it ends in a teardown that was confirmed, and nothing is left in Slurm or SkyPilot."""

from __future__ import annotations

from tests.e2e.slurm.desk import Desk
from tests.e2e.slurm.loopback import wait_for

ALL = {"resources__gpus": "H100:8", "resources__nodes": 2}
FOREVER = "start()\nstep(1)\nwait('end')\n"


def check_gone(desk: Desk, *jobs: str) -> None:
    """Nothing of them is there at the moment at which they are told to be cancelled."""
    for job in jobs:
        desk.until(job, "cancelled")
        assert desk.loopback.squeue(desk.attempt(job).name) == []
    assert desk.loopback.clusters(desk.mine) == []
    assert desk.loopback.live_managed(desk.mine) == []


def test_while_queued_provisioning_in_setup_and_running(desk: Desk) -> None:
    """Four jobs at once. The running one holds every GPU, so that another one for a GPU waits in Slurm's queue."""
    running = desk.launch("running", desk.played("running", FOREVER, **ALL))
    desk.reached("running", "end")
    queued = desk.launch("queued", desk.played("queued", FOREVER, resources__gpus="H100:1"))
    slow = {"sky__setup": "sleep 3000", "resources__mode": "cluster"}
    in_setup = desk.launch("in-setup", desk.raw("echo never", **slow))
    wait_for(lambda: any(job.state == "PENDING" for job in desk.loopback.squeue(desk.mine)), "a job in Slurm's queue")
    wait_for(lambda: desk.attempt(in_setup).state == "setting_up", "the setup")
    provisioning = desk.launch("provisioning", desk.played("provisioning", FOREVER))
    wait_for(lambda: desk.attempt(provisioning).state == "launching", "the launch to be sent")
    assert len(desk.slurm_jobs()) >= 3, "the control: what is to go is there"

    desk.run("cancel", provisioning, queued, in_setup, running)
    check_gone(desk, provisioning, queued, in_setup, running)
    assert desk.runs("provisioning") == desk.runs("queued") == []
    for job in (provisioning, queued, in_setup, running):
        kinds = [event.type for event in desk.events(job)]
        assert kinds.index("attempt.stopping") < kinds.index("attempt.cancelled") < kinds.index("job.cancelled")


def test_while_recovering(desk: Desk) -> None:
    """A managed job whose allocation was ended beneath it, and which finds no place for a new one."""
    job = desk.launch("moving", desk.played("moving", FOREVER, resources__storage=str(desk.shared), **ALL))
    desk.reached("moving", "end")
    desk.until(job, "running")
    blocker = desk.loopback.exec(
        "sbatch", "--parsable", "--chdir=/", "--output=/dev/null", "--nodes=2", "--gres=gpu:H100:8",
        "--job-name=blocker", "--wrap=sleep 3000",
    ).split()[0]  # fmt: skip
    try:
        (slurm,) = desk.loopback.squeue(desk.mine)
        desk.loopback.exec("scancel", str(slurm.id))
        desk.until(job, "recovering")
        desk.run("cancel", job)
        check_gone(desk, job)
    finally:
        desk.loopback.exec("scancel", blocker)

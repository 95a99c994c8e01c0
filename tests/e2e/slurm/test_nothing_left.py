"""After all tests: the cluster is as it was at the beginning."""

from __future__ import annotations

from tests.e2e.slurm.loopback import REUSED, Loopback, wait_for


def test_slurm_and_skypilot_have_nothing(loopback: Loopback) -> None:
    others = not REUSED  # someone else may be at work on a cluster that is not this session's own
    if others:
        wait_for(lambda: loopback.squeue() == [], "Slurm's queue to be empty", patience=30)
        assert loopback.clusters() == []
        assert loopback.live_managed() == []
    assert loopback.is_healthy()


def test_control_a_job_would_be_seen(loopback: Loopback) -> None:
    slurm = loopback.exec("sbatch", "--parsable", "--chdir=/", "--output=/dev/null", "--job-name=x", "--wrap=sleep 99")
    try:
        assert int(slurm) in [job.id for job in loopback.squeue()]
    finally:
        loopback.exec("scancel", slurm.strip())
    wait_for(lambda: int(slurm) not in [job.id for job in loopback.squeue()], "it to go")

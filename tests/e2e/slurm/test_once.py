"""A worker killed with -9 at every step: each job is launched once, and its machine does not outlive it."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from tests.e2e.slurm.desk import ANN, Desk
from tests.e2e.slurm.loopback import PATIENCE, Loopback, wait_for

#: How many rounds of kills at random moments; `make e2e` sets 200 for tests that take milliseconds a round.
ROUNDS = max(1, int(os.environ.get("AINFINITY_ROUNDS", "20")) // 100)
#: A life of one job each: a worker dies at the first step, the next one at the second, and the last one finishes.
TO_SUCCESS = (
    "launch:intended", "launch:called", "observe:seen", "observe:recorded", "ingest:read", "ingest:recorded",
    "cancel:stopping", "cancel:called", "cancel:confirmed",
)  # fmt: skip
TO_CANCEL = ("launch:recorded", "cancel:stopping", "cancel:called", "cancel:confirmed")
SHORT = "start()\nfor n in range(1, 9): step(n)\nfinish()\n"


def die_at(desk: Desk, step: str) -> None:
    """Let a worker work until it dies at its step."""
    assert desk.worker(step=step).wait(PATIENCE) == -signal.SIGKILL, f"no worker came to {step}\n{desk.worker_log()}"


def check_once(desk: Desk, job: str, name: str) -> None:
    (attempt,) = desk.detail(job).attempts
    assert len(desk.loopback.ever(attempt.name)) == 1
    assert len(desk.runs(name)) <= 1
    assert desk.slurm_jobs() == []


def test_killed_at_each_step_on_the_way_to_success(desk: Desk) -> None:
    job = desk.submit("first", desk.played("first", SHORT))
    for step in TO_SUCCESS:
        die_at(desk, step)
    desk.worker()
    desk.until(job, "succeeded")
    check_once(desk, job, "first")
    assert desk.losses(job) == {number: 4.0 / number for number in range(1, 9)}


def test_killed_at_each_step_on_the_way_to_a_cancel(desk: Desk) -> None:
    job = desk.submit("first", desk.played("first", "start()\nwait('end')\n"))
    die_at(desk, TO_CANCEL[0])
    desk.service.stop_job(job, ANN)  # no command: that would start a worker
    for step in TO_CANCEL[1:]:
        die_at(desk, step)
    desk.worker()
    desk.until(job, "cancelled")
    check_once(desk, job, "first")


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_killed_at_random_moments(desk: Desk, round_: int) -> None:
    dice = random.Random(round_)
    job = desk.submit("first", desk.played("first", SHORT))
    for _ in range(3):
        worker = desk.worker()
        time.sleep(dice.uniform(1, 12))
        worker.kill()
        worker.wait(PATIENCE)
    desk.worker()
    desk.until(job, "succeeded")
    check_once(desk, job, "first")


def test_control_two_slurm_jobs_of_a_name_would_be_counted(loopback: Loopback) -> None:
    name = f"control-{random.randrange(1 << 30):x}"
    for _ in range(2):
        loopback.exec("sbatch", "--chdir=/", "--output=/dev/null", f"--job-name={name}", "--wrap=true")
    wait_for(lambda: len(loopback.ever(name)) == 2)

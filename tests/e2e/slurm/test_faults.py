"""Faults around a job on the real cluster: right state, cause in words with the next step, no duplicate, no leak.

| fault | test |
|---|---|
| API server down (refuses), slow (30 s answers), 5xx, 404 for what it knew | `test_a_running_job_outlives_...` |
| the reply to a launch lost, 502 to a launch, 404 for a launch that is known | `test_launches_whose_replies_...` |
| a log stream cut in its middle, again and again | `test_a_log_stream_that_is_cut_...` |
| API server killed -9 in mid-launch and started again | `test_killed.py::test_the_api_server_...` |
| no resources | `test_what_cannot_be_launched_...[no resources]` |
| quota | `tests/compute/remote/test_faults.py`: Slurm here has none, so SkyPilot's words for it go through our table |
| bad credentials | `test_what_cannot_be_launched_...[credentials]` |
| task YAML with an unknown field | `test_what_cannot_be_launched_...[unknown field]` |
| setup failed | `test_what_cannot_be_launched_...[setup]` |
| cluster killed under the job | `test_a_cluster_killed_under_its_job_...` |
| node killed | `test_killed.py::test_a_managed_job_...` |
| disk full | `test_a_full_disk_...` |

While the job under test meets its fault, another one on this machine does its work (`other`).
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.slurm.desk import Desk
from tests.e2e.slurm.loopback import wait_for
from tests.e2e.slurm.proxy import Proxy

#: How late a slow server answers, and for how long each fault is held, in seconds.
SLOW = float(os.environ.get("AINFINITY_SLOW", "30"))
HOLD = 20.0
#: Longer than a job on this machine takes, with room for a machine that is busy; far less than SLOW times its requests.
OTHER = 60.0
SHORT = "start()\nfor n in range(1, 9): step(n)\nfinish()\n"
WAITING = "start()\nstep(1)\nwait('end')\nfor n in range(2, 9): step(n)\nfinish()\n"


@pytest.fixture
def proxy(desk: Desk) -> Iterator[Proxy]:
    with Proxy(desk.loopback.url) as proxy:
        desk.extra["SKYPILOT_API_SERVER_ENDPOINT"] = proxy.url
        yield proxy


def other(desk: Desk, name: str) -> None:
    """A job on this machine is not delayed by what another one meets."""
    desk.until(desk.launch(name, desk.local(name)), "succeeded", patience=OTHER)


def check_once(desk: Desk, job: str, name: str) -> None:
    (attempt,) = desk.detail(job).attempts
    assert len(desk.loopback.ever(attempt.name)) == 1
    assert len(desk.runs(name)) == 1
    assert desk.slurm_jobs() == []


def test_a_running_job_outlives_a_server_that_is_down_slow_or_confused(desk: Desk, proxy: Proxy) -> None:
    job = desk.launch("first", desk.played("first", WAITING))
    desk.reached("first", "end")
    desk.until(job, "running")
    faults: list[tuple[str, Any, float]] = [("refuse", "", 0), ("error", "", 503), ("error", "", 404)]
    for number, (kind, pattern, amount) in enumerate([*faults, ("slow", "", SLOW)]):
        with proxy.fault(kind, pattern, amount) as fault:
            wait_for(lambda: desk.row(job).stale_since is not None, f"{kind} {amount} to be noticed")
            other(desk, f"other-{number}")
            time.sleep(HOLD / 4)
            assert desk.row(job).state == "running"
            assert fault.count > 0
            reasons = [event.data["reason"] for event in desk.events(job) if event.type == "contact.lost"]
            assert len(reasons) == number + 1, "said once, not with every tick"
            assert reasons[-1]
        wait_for(lambda: desk.row(job).stale_since is None, f"contact after {kind} {amount}")
    desk.go("first", "end")
    desk.until(job, "succeeded")
    check_once(desk, job, "first")
    assert desk.losses(job) == {number: 4.0 / number for number in range(1, 9)}


def test_launches_whose_replies_do_not_arrive_are_made_once(desk: Desk, proxy: Proxy) -> None:
    faults: dict[str, tuple[Any, str, float, float]] = {
        "lost": ("lost", "POST /(api/v1/)?launch", 0, 1),
        "refused": ("error", "POST /(api/v1/)?launch", 502, 1),
        "unknown": ("error", "GET /(api/v1/)?api/(get|stream|status)", 404, 4),
    }
    jobs: dict[str, str] = {}
    for name, (kind, pattern, amount, times) in faults.items():
        with proxy.fault(kind, pattern, amount, times) as fault:
            jobs[name] = desk.launch(name, desk.played(name, SHORT))
            wait_for(lambda: fault.count >= 1, f"{name} to meet its fault")
    for name, job in jobs.items():
        desk.until(job, "succeeded")
        check_once(desk, job, name)


def test_a_log_stream_that_is_cut_again_and_again_comes_whole(desk: Desk, proxy: Proxy) -> None:
    lines = 5000
    run = f"for i in $(seq 1 {lines}); do echo line $i; [ $((i % 100)) != 0 ] || sleep 0.2; done"
    job = desk.launch("talker", desk.raw(run, resources__mode="cluster"))
    with proxy.fault("cut", "POST /(api/v1/)?logs", 20_000, 8) as fault:
        desk.until(job, "succeeded")
        assert fault.count >= 2
    found = [line for line in desk.run("logs", job).stdout.splitlines() if line.startswith("line ")]
    assert found == [f"line {number}" for number in range(1, lines + 1)]


UNLAUNCHABLE: dict[str, tuple[dict[str, Any], str, str]] = {
    "no resources": ({"sky__resources__accelerators": "H100:9"}, "no_resources", "ainfinity gpus"),
    "credentials": ({"sky__resources__infra": "aws/us-east-1", "resources__infra": "aws/us-east-1"}, "credentials",
                    "sky check"),
    "unknown field": ({"sky__acceleratorz": "H100"}, "bad_task", "acceleratorz"),
    "setup": ({"sky__setup": "echo told why; exit 3"}, "setup_failed", "ainfinity logs"),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["cluster", "managed"])
def test_what_cannot_be_launched_fails_with_its_cause_and_leaves_nothing(desk: Desk, mode: str) -> None:
    jobs: dict[str, str] = {}
    for case, (changes, code, words) in UNLAUNCHABLE.items():
        name = case.replace(" ", "-")
        path = desk.job_file(name, desk.raw("echo never", resources__mode=mode, **changes))
        done = desk.run("launch", str(path), "--yes", code=None)
        if done.returncode == 0:
            jobs[case] = done.stdout.split()[-1]
        else:  # some is refused where the person sits
            assert words in done.stderr, (case, code, done.stderr)
    other(desk, "other")
    for case, job in jobs.items():
        _, code, words = UNLAUNCHABLE[case]
        row = desk.until(job, "failed")
        assert (row.error_code, words in row.error_message) == (code, True), (case, row)
        assert len(desk.detail(job).attempts) == 1
    if "setup" in jobs:
        assert "told why" in desk.run("logs", jobs["setup"]).stdout
    assert desk.slurm_jobs() == []
    assert desk.loopback.clusters(desk.mine) == []


@pytest.mark.parametrize(("recover", "end"), [("auto", "succeeded"), ("never", "failed")])
def test_a_cluster_killed_under_its_job_is_replaced_unless_that_is_not_wanted(
    desk: Desk, recover: str, end: str
) -> None:
    script = "start()\nif attempt.endswith('-a1'): wait('end')\nfinish()\n"
    job = desk.launch("first", desk.played("first", script, policy__recover=recover))
    desk.reached("first", "end")
    desk.until(job, "running")
    (slurm,) = desk.loopback.squeue(desk.mine)
    desk.loopback.exec("scancel", str(slurm.id))
    other(desk, "other")
    row = desk.until(job, end)
    attempts = desk.detail(job).attempts
    assert attempts[0].state == "lost"
    assert len(attempts) == (2 if recover == "auto" else 1)
    if recover == "never":
        assert row.error_message
    assert all(len(desk.loopback.ever(attempt.name)) == 1 for attempt in attempts)
    assert desk.slurm_jobs() == []
    assert desk.loopback.clusters(desk.mine) == []


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of that size at `folder`, which keeps what it held."""
    held = folder.with_name("held")
    folder.rename(held)
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True)
    if done.returncode != 0:
        folder.rmdir()
        held.rename(folder)
        pytest.skip(f"FULL DISK NOT TESTED: {done.stderr.decode().strip()}")
    try:
        subprocess.run(["cp", "-a", f"{held}/.", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_loses_neither_the_job_nor_a_line_of_its_log(desk: Desk) -> None:
    lines = 20_000
    script = f"start()\nfor n in range({lines}): print('line', n, flush=True)\nwait('end')\nfinish()\n"
    desk.store.close()
    with small_disk(desk.settings.data_dir, "8m"):
        try:
            ballast = desk.settings.data_dir / "ballast"
            job = desk.launch("first", desk.played("first", script))
            wait_for(lambda: desk.attempt(job).handle, "its launch")
            _fill(ballast)
            desk.reached("first", "end")
            time.sleep(HOLD)
            assert desk.row(job).state not in ("failed", "cancelled")
            assert len(desk.slurm_jobs()) == 1
            ballast.unlink()
            desk.go("first", "end")
            desk.until(job, "succeeded")
            found = [line for line in desk.run("logs", job).stdout.splitlines() if line.startswith("line ")]
            assert found == [f"line {number}" for number in range(lines)]
            check_once(desk, job, "first")
        finally:
            desk.kill_workers()
            desk.store.close()


def _fill(ballast: Path) -> None:
    done = subprocess.run(["dd", "if=/dev/zero", f"of={ballast}", "bs=4096"], capture_output=True, text=True)
    assert "No space left" in done.stderr

"""What a person does with a job on a machine elsewhere, and a SkyPilot task of their own."""

from __future__ import annotations

import json
import time

import pytest

from tests.e2e.slurm.desk import Desk
from tests.e2e.slurm.loopback import wait_for


def test_exec_ssh_and_extend_reach_the_machine(desk: Desk) -> None:
    began = time.time()
    job = desk.launch("first", desk.played("first", "start()\nwait('end')\nfinish()\n", policy__max_duration="1h"))
    desk.reached("first", "end")
    desk.until(job, "running")
    node = desk.runs("first")[0].split()[-1]

    said = desk.run("exec", job, "--", "sh", "-c", "hostname; echo to $0 >&2; exit 7", "me", code=7)
    assert (said.stdout.strip(), "to me" in said.stderr) == (node, True)
    assert desk.run("ssh", job, stdin="hostname\n").stdout.strip().endswith(node)

    read = ("exec", job, "--", "sh", "-c", f"cat ~/.ainfinity/attempts/{desk.attempt(job).name}/deadline")
    desk.run("extend", job, "+2h")
    wait_for(lambda: desk.run(*read, code=None).stdout.strip(), "the deadline on the machine")
    assert began + 3 * 3600 <= float(desk.run(*read).stdout) <= time.time() + 3 * 3600

    desk.go("first", "end")
    desk.until(job, "succeeded")
    assert desk.slurm_jobs() == []


@pytest.mark.parametrize("mode", ["cluster", "managed"])
def test_a_skypilot_task_runs_unchanged_with_our_state_notices_log_and_cost(desk: Desk, mode: str) -> None:
    (desk.root / "hello.txt").write_text("carried along")
    task = {
        "sky__num_nodes": 2,
        "sky__envs": {"GREETING": "hello there"},
        "sky__file_mounts": {"/tmp/hello.txt": str(desk.root / "hello.txt")},
        "sky__setup": "echo made ready",
        "resources__mode": mode,
    }
    run = 'echo "$GREETING from $SKYPILOT_NODE_RANK of $SKYPILOT_NUM_NODES"; cat /tmp/hello.txt; echo; sleep 5'
    job = desk.launch("mine", desk.raw(run, **task))
    row = desk.until(job, "succeeded")
    lines = desk.run("logs", job).stdout.splitlines()
    for line in ("hello there from 0 of 2", "[1] hello there from 1 of 2", "carried along", "[1] carried along"):
        assert lines.count(line) == 1
    assert "made ready" in lines
    assert row.cost is not None
    assert row.cost > 0
    told = [json.loads(line) for line in (desk.settings.data_dir / "notices.jsonl").read_text().splitlines()]
    assert [one["event"] for one in told].count("job.succeeded") == 1
    assert desk.slurm_jobs() == []


def test_two_hundred_thousand_lines_of_two_nodes_come_whole_and_in_order(desk: Desk) -> None:
    count = 100_000
    run = f'seq -f "node $SKYPILOT_NODE_RANK line %.0f" 1 {count}'
    job = desk.launch("talker", desk.raw(run, sky__num_nodes=2, resources__mode="cluster"))
    desk.until(job, "succeeded")
    lines = desk.run("logs", job).stdout.splitlines()
    for node, mark in enumerate(("", "[1] ")):  # all nodes but the first are named
        mine = [line for line in lines if line.startswith(f"{mark}node {node} ")]
        assert mine == [f"{mark}node {node} line {number}" for number in range(1, count + 1)]

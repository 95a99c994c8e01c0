"""The deadline as a machine keeps it by itself: rendered scripts in a real bash, with a stand-in for the trainer."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ainfinity.schema.training_job import JobSpec
from skylaunch.render import Launch, render_task
from tests.skylaunch.machine import ATTEMPT, Node, finish, wait_for

#: Notes each start and each signal, and then does what the test asks for in the variable ACT.
TRAINER = """#!/bin/bash
case "$*" in *training.verify*) echo "verify ${@: -1}" >>"$HOME/calls"; exit "${VERIFY_CODE:-0}" ;; -c*) exit 0 ;; esac
echo train >>"$HOME/calls"
trap 'echo term >>"$HOME/calls"; [ "${ACT%% *}" = stubborn ] || exit 1' TERM
case "$ACT" in
  exit*) exit "${ACT#exit }" ;;
  *orphan*) (setsid bash -c 'trap "" TERM; touch "$HOME/orphan"; while :; do sleep 0.1; done' >/dev/null 2>&1 &) ;;
esac
touch "$HOME/up"
while :; do sleep 0.1; done
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "home", TRAINER)
    yield node
    node.clear()


def render(node: Node, *, deadline: float | None, storage: str | None = None, nodes: int = 1) -> dict[str, Any]:
    resources = {"infra": "k8s", "python": str(node.python), "storage": storage, "nodes": nodes}
    content = {"name": "chat", "recipe": {"model": "m", "data": "d"}, "resources": resources}
    launch = Launch(attempt=ATTEMPT, job_id="abcdefghij", deadline=deadline)
    return render_task(JobSpec.model_validate(content), launch)


def start(node: Node, act: str, *, deadline: float | None, **options: Any) -> subprocess.Popen[bytes]:
    """Set up and begin to run, up to where the trainer runs."""
    task = render(node, deadline=deadline, **options)
    code, said = node.run(task["setup"], task["envs"])
    assert code == 0, said
    running = node.start(task["run"], task["envs"] | {"ACT": act})
    wait_for(lambda: running.poll() is not None or node.says("up") or (node.home / "up").exists(), "the trainer")
    return running


def until_nothing_runs(node: Node) -> None:
    wait_for(lambda: not node.alive(), "everything to be gone")


def test_a_trainer_that_saves_on_sigterm_is_told_once_at_the_deadline(node: Node) -> None:
    deadline = time.time() + 3
    code, said = finish(start(node, "obey", deadline=deadline))
    assert time.time() >= int(deadline)
    assert (code, node.says("calls")) == (76, "train\nterm\n")
    assert "the deadline of this attempt has passed" in said
    until_nothing_runs(node)


def test_a_trainer_that_ignores_sigterm_is_killed(node: Node) -> None:
    code, said = finish(start(node, "stubborn", deadline=time.time() + 3))
    assert (code, node.says("calls")) == (76, "train\nterm\n")
    assert "it did not end in time and is killed" in said
    until_nothing_runs(node)


def test_what_left_the_session_and_lost_its_parent_is_ended_too(node: Node) -> None:
    running = start(node, "stubborn orphan", deadline=time.time() + 4)
    wait_for((node.home / "orphan").exists, "the orphan")
    assert finish(running)[0] == 76
    until_nothing_runs(node)


def test_control_without_a_deadline_it_runs_on(node: Node) -> None:
    running = start(node, "obey", deadline=None)
    time.sleep(3.5)
    assert running.poll() is None
    assert node.says("calls") == "train\n"
    assert len(node.alive()) >= 3


@pytest.mark.parametrize("storage", [None, "shared"])
def test_an_extended_attempt_outlives_its_first_deadline(node: Node, storage: str | None) -> None:
    place = None if storage is None else str(node.home / storage)
    deadline = time.time() + 4
    running = start(node, "obey", deadline=deadline, storage=place)
    folder = node.folder if place is None else Path(place, "abcdefghij")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ("deadline" if place is None else f"{ATTEMPT}.deadline")
    for text in (f"{time.time() + 600}\n", "none\n"):
        file.write_text(text)
        time.sleep(max(deadline + 1.5 - time.time(), 1.0))
        assert running.poll() is None
    file.write_text("half a num")  # damaged: what the attempt was launched with stands
    assert finish(running)[0] == 76
    until_nothing_runs(node)


def test_a_deadline_given_later_is_kept(node: Node) -> None:
    running = start(node, "obey", deadline=None)
    (node.folder / "deadline").write_text(f"{time.time() - 1}\n")
    assert finish(running)[0] == 76
    until_nothing_runs(node)


def test_nothing_is_started_after_the_deadline(node: Node) -> None:
    task = render(node, deadline=time.time() - 5)
    for script in (task["setup"], task["run"]):
        code, said = node.run(script, task["envs"])
        assert code == 76
        assert "it is not started" in said
    assert node.says("calls") == ""
    until_nothing_runs(node)


def test_a_recovery_does_not_begin_after_a_deadline_that_was_extended_and_passed(node: Node) -> None:
    task = render(node, deadline=time.time() - 5)
    node.folder.mkdir(parents=True)
    (node.folder / "deadline").write_text(f"{time.time() + 600}\n")
    assert node.run(task["setup"], task["envs"])[0] == 0
    (node.folder / "deadline").write_text(f"{time.time() - 1}\n")
    assert node.run(task["run"], task["envs"])[0] == 76
    assert node.says("calls") == ""


@pytest.mark.parametrize(
    ("act", "late", "expected"), [("exit 0", True, 0), ("exit 1", False, 1), ("exit 75", False, 75)]
)
def test_the_end_of_the_trainer_is_the_end_of_the_task(node: Node, act: str, late: bool, expected: int) -> None:
    code, _ = finish(start(node, act, deadline=time.time() + 600))
    assert code == expected
    assert node.says("calls") == "train\n"
    until_nothing_runs(node)


def test_torchrun_that_ends_with_one_after_the_deadline_stopped_for_it(node: Node) -> None:
    """The notice leaves the trainer time to end by itself; its code 76 comes out of torchrun as 1."""
    task = render(node, deadline=time.time() + 2)
    assert node.run(task["setup"], task["envs"])[0] == 0
    node.python.write_text("#!/bin/bash\nsleep 3\nexit 1\n")
    running = node.start(f"export AINFINITY_NOTICE=60\n{task['run']}", task["envs"])
    assert finish(running)[0] == 76


def test_a_model_on_durable_storage_is_read_again_by_another_process(node: Node) -> None:
    storage = str(node.home / "shared")
    assert finish(start(node, "exit 0", deadline=None, storage=storage))[0] == 0
    assert node.says("calls") == f"train\nverify {storage}/abcdefghij/output\n"


def test_a_model_that_cannot_be_read_again_fails_the_task(node: Node) -> None:
    node.python.write_text(TRAINER.replace("${VERIFY_CODE:-0}", "3"))
    assert finish(start(node, "exit 0", deadline=None, storage=str(node.home / "shared")))[0] == 3


def test_only_the_first_node_reads_the_model_again(node: Node) -> None:
    task = render(node, deadline=None, storage=str(node.home / "shared"), nodes=2)
    assert node.run(task["setup"], task["envs"], nodes=2)[0] == 0
    for rank in (1, 0):
        assert node.run(task["run"], task["envs"] | {"ACT": "exit 0"}, rank=rank, nodes=2)[0] == 0
    assert node.says("calls").count("verify") == 1


def test_each_node_keeps_the_deadline_and_ends_only_its_own(node: Node) -> None:
    """Both run on this machine, as nodes of a small cluster may: neither ends what is the other's."""
    task = render(node, deadline=None, nodes=2)
    assert node.run(task["setup"], task["envs"], nodes=2)[0] == 0
    late = node.home / "late"
    late.write_text("none\n")
    ranks = [
        node.start(task["run"], task["envs"] | {"ACT": "obey", **extra}, rank=rank, nodes=2)
        for rank, extra in enumerate(({}, {"AINFINITY_DEADLINE_FILE": str(late)}))
    ]
    wait_for(lambda: node.says("calls").count("train") == 2, "both nodes")
    late.write_text("1\n")
    assert finish(ranks[1])[0] == 76
    assert ranks[0].poll() is None
    assert node.says("calls").count("term") == 1
    (node.folder / "deadline").write_text("1\n")
    assert finish(ranks[0])[0] == 76
    until_nothing_runs(node)

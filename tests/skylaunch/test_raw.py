"""A user's own task: nothing in it changes, and its script runs as it would alone, but for the deadline."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ainfinity.schema.training_job import JobSpec
from skylaunch.raw import render_raw
from skylaunch.render import Launch, render_task
from tests.skylaunch.machine import ATTEMPT, Node, finish, wait_for

TASK: dict[str, Any] = {
    "name": "mine",
    "num_nodes": 2,
    "workdir": "/home/me/code",
    "resources": {"any_of": [{"infra": "aws", "accelerators": {"H100": 8}}, {"infra": "gcp"}], "use_spot": True},
    "envs": {"A": "1"},
    "secrets": {"HF_TOKEN": None},
    "file_mounts": {"/data": {"source": "s3://bucket/path", "mode": "MOUNT"}, "/x": "/home/me/x"},
    "config": {"kubernetes": {"pod_config": {}}},
    "setup": "pip install x\n",
    "run": "echo hello\n",
    "no_such_field": [1, 2.5, None],
}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "home", "")
    yield node
    node.clear()


def test_everything_but_name_marks_and_guard_is_as_written() -> None:
    before = copy.deepcopy(TASK)
    spec = JobSpec.model_validate({"name": "mine", "sky": TASK, "resources": {"infra": "aws"}})
    task = render_task(spec, Launch(attempt=ATTEMPT, job_id="abcdefghij", deadline=1_900_000_000.75))
    assert before == TASK
    assert task["name"] == ATTEMPT
    marks = {"AINFINITY_ATTEMPT": ATTEMPT, "AINFINITY_DEADLINE": "1900000000"}
    assert {name: value for name, value in task["envs"].items() if name != "AINFINITY_WATCH"} == {"A": "1", **marks}
    assert task["run"].endswith("; echo hello\n")
    ours = {"name", "envs", "run"}
    assert {key: value for key, value in task.items() if key not in ours} == {
        key: value for key, value in TASK.items() if key not in ours
    }


@pytest.mark.parametrize("envs", [None, {}, "absent"])
def test_a_task_without_a_script_or_variables_gets_the_marks_alone(envs: Any) -> None:
    task = render_raw({} if envs == "absent" else {"envs": envs}, ATTEMPT, None)
    assert task == {"name": ATTEMPT, "envs": {"AINFINITY_ATTEMPT": ATTEMPT}}


@pytest.mark.parametrize("envs", [["A=1"], "A=1"])
def test_what_skypilot_will_refuse_is_left_to_it(envs: Any) -> None:
    assert render_raw({"envs": envs}, ATTEMPT, None)["envs"] == envs


SCRIPTS = {
    "exit code": "exit 7",
    "last command": "false",
    "set -e": "set -e\nfalse\necho not reached",
    "unset variable": "set -u\necho $nothing_of_this_name",
    "options": "set -o; shopt; echo $-",
    "arguments": 'echo "$0" $# "$@"; echo ${BASH_SOURCE[0]}',
    "functions": "declare -F; f() { return 3; }; f",
    "variables": "env | grep -v -e ^AINFINITY_ -e ^_= | sort; compgen -v | grep -v -i ainfinity | sort",
    "wait for all": "sleep 0.1 & wait; echo $? $!x | sed 's/[0-9]*x$/x/'; jobs",
    "here document": "cat <<END\n$HOME `echo a`\nEND",
    "unfinished here document": "cat <<END\ntext",
    "syntax error": "echo before\nif then\n",
    "exec": "exec bash -c 'echo other; exit 5'",
    "own traps": "trap 'echo bye' EXIT; trap 'echo usr' USR1; kill -USR1 $$; exit 2",
    "killed by itself": "kill -KILL $$",
    "subshell": "(exit 4)\n(echo $BASH_SUBSHELL; exit 6)",
    "status at first": "echo $? $!",
    "standard input": "cat; echo end",
    "open files": "ls /proc/self/fd | wc -l",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_ends_and_speaks_as_it_would_alone(node: Node, name: str) -> None:
    envs = {"AINFINITY_ATTEMPT": ATTEMPT, "AINFINITY_DEADLINE": str(int(time.time()) + 600)}
    script = SCRIPTS[name]
    task = render_raw({"run": script, "envs": envs}, ATTEMPT, None)
    assert node.run(task["run"], task["envs"]) == node.run(script, envs)
    wait_for(lambda: not node.alive(), "the guard to go")


ENDLESS = {
    "a loop that goes on after a failure": ("while :; do sleep 1 || true; done; echo not reached >> ~/calls", 76),
    "a program in the shell's place": ("trap '' USR1; exec sleep 100", -15),
    "a subshell": ("(while :; do sleep 1; done)\necho not reached >> ~/calls", 76),
    "one that waits": ("sleep 100 & wait; echo not reached >> ~/calls", 76),
    "one that hears nothing": (
        "trap '' TERM; (trap '' TERM; while :; do sleep 1; done)\necho not reached >> ~/calls",
        76,
    ),
    "one in a session of its own": ("setsid --wait sleep 100; echo not reached >> ~/calls", 76),
    "with strict options": ("set -euo pipefail; while :; do sleep 1; done", 76),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_at_the_deadline_it_ends_whatever_it_does(node: Node, name: str) -> None:
    script, expected = ENDLESS[name]
    task = render_raw({"run": script}, ATTEMPT, time.time() + 2)
    running = node.start(task["run"], task["envs"])
    code, said = finish(running)
    assert code == expected, said
    assert node.says("calls") == ""
    wait_for(lambda: not node.alive(), "everything to be gone")


def test_control_without_a_deadline_it_goes_on(node: Node) -> None:
    task = render_raw({"run": "sleep 100"}, ATTEMPT, None)
    running = node.start(task["run"], task["envs"])
    time.sleep(3)
    assert running.poll() is None


def test_a_secret_in_the_task_itself_is_refused() -> None:
    task = TASK | {"secrets": {"HF_TOKEN": "canary-in-a-task"}}
    with pytest.raises(ValueError, match="HF_TOKEN") as caught:
        JobSpec.model_validate({"name": "mine", "sky": task, "resources": {"infra": "aws"}})
    assert "canary" not in str(caught.value)


def test_a_service_is_no_job() -> None:
    with pytest.raises(ValueError, match="service"):
        JobSpec.model_validate({"name": "mine", "sky": TASK | {"service": {}}, "resources": {"infra": "aws"}})

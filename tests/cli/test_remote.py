"""The commands about machines elsewhere. SkyPilot itself is behind one process, whose answers are given here."""

from __future__ import annotations

import io
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from ainfinity.cli import output, pull, sky
from ainfinity.core.exceptions import ComputeUnreachable
from ainfinity.services import outside

HEALTHY = {"endpoint": "http://127.0.0.1:46580", "local": True, "problem": "", "hint": "", "reachable": True}
ABSENT = HEALTHY | {"problem": "No API server answers.", "reachable": False}
ELSEWHERE = HEALTHY | {"endpoint": "https://sky.example.org", "local": False, "problem": "It wants a login."}
GPUS = {
    "gpus": [
        {"name": "H100", "count": 8, "infra": "aws", "region": "us-east-1", "instance": "p5", "price": 98.32},
        {"name": "L4", "count": 1, "infra": "gcp", "region": "us-east4", "price": None, "gpu_memory": 24.0},
    ],
    "free": [{"name": "H100", "infra": "slurm/lab", "total": 16, "free": 5, "per_node": [8]}],
}
ORPHAN = {
    "kind": "cluster",
    "ident": "x",
    "backend": "skypilot",
    "status": "UP",
    "given": "1x H100:8 aws",
    "infra": "aws",
}


class Asked:
    """Answers of `python -m ainfinity.compute.ask`, by question; an exception is raised."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"health": HEALTHY, "gpus": GPUS, "orphans": [], "adoptable": []}
        self.questions: list[str] = []

    def __call__(self, question: str, arguments: Mapping[str, Any], limit: float) -> Any:
        self.questions.append(question)
        answer = self.answers[question]
        if isinstance(answer, Exception):
            raise answer
        return answer(arguments) if callable(answer) else answer


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked()
    monkeypatch.setattr(outside, "run_ask", asked)
    return asked


def test_gpus_are_listed_with_the_age_of_the_answer(cli: Any, seed: Any, asked: Asked) -> None:
    shown = cli("gpus")
    assert [line.split()[0] for line in shown.out.splitlines()[1:]] == ["H100:8", "H100:8", "L4:1"]
    assert "98.32" in shown.out
    assert "unknown" in shown.out
    assert "$0" not in shown.out
    assert "5/16" in shown.out
    assert "As of just now" in shown.err
    found = cli("gpus", "l4", "--json").json("gpus")
    assert [(offer["name"], offer["price_per_hour"]) for offer in found["offers"]] == [("L4", None)]
    assert asked.questions == ["gpus"]
    asked.answers["gpus"] = ComputeUnreachable("It sleeps.", hint="Wake it.")
    old = cli("gpus", "--refresh")
    assert old.code == 0
    assert "No newer answer: It sleeps. Wake it." in old.err
    assert "Nothing fits" in cli("gpus", "T4").err


def test_without_any_answer_gpus_says_why(cli: Any, seed: Any, asked: Asked) -> None:
    asked.answers["gpus"] = ComputeUnreachable("It sleeps.", hint="Wake it.")
    result = cli("gpus", "--json")
    assert result.code == 4
    assert result.error() == {"code": "compute_unreachable", "message": "It sleeps.", "hint": "Wake it."}


def test_orphans_are_listed_and_answered_for(cli: Any, seed: Any, asked: Asked) -> None:
    with sqlite3.connect(seed.home.settings.sqlite_path) as connection:
        (installation,) = connection.execute("SELECT value FROM meta WHERE name = 'installation'").fetchone()
    name = f"ain-{installation}-zzzzzzzzzz-a1"
    assert "No orphans" in cli("orphans").err
    blind = name.replace("zz-", "zy-")
    asked.answers["orphans"] = [
        ORPHAN | {"name": name, "price_per_hour": 98.32, "launched_at": None},
        ORPHAN | {"name": blind, "price_per_hour": None, "launched_at": None},
    ]
    shown = cli("orphans", "--refresh")
    lines = {line.split()[0]: line for line in shown.out.splitlines()}
    assert lines[blind].count("unknown") == 2
    assert "$98.32/h" in lines[name]
    assert "removed in 1d00h" in lines[name]
    rows = {row["name"]: row for row in cli("orphans", "--json").json("orphans")["rows"]}
    assert (rows[name]["price_per_hour"], rows[blind]["price_per_hour"], rows[name]["answer"]) == (98.32, None, "")
    kept = cli("orphans", "keep", name, "--json").json("orphans-answer")
    assert (kept["answer"], kept["answered_by"].partition(":")[0]) == ("keep", "local")
    assert "keep (local:" in cli("orphans").out
    assert "being removed" in cli("orphans", "remove", name).err


def test_orphans_that_nobody_could_tell_of_are_not_said_to_be_none(cli: Any, seed: Any, asked: Asked) -> None:
    asked.answers["orphans"] = ComputeUnreachable("It sleeps.", hint="Wake it.")
    result = cli("orphans")
    assert result.code == 4
    assert "No orphans" not in result.err
    assert "It sleeps. Wake it." in result.err


def test_the_api_server_is_looked_at_and_started_on_a_word(cli: Any, seed: Any, asked: Asked) -> None:
    assert cli("sky", "status", "--json").json("sky")["problem"] == ""
    assert "healthy" in cli("sky", "status").out
    asked.answers["health"] = ABSENT
    down = cli("sky", "status")
    assert down.code == 4
    assert "ainfinity sky start" in down.err
    refused = cli("sky", "start", "--json")
    assert refused.code == 4
    assert "--yes" in refused.error()["hint"]
    assert "start" not in asked.questions
    asked.answers["start"] = HEALTHY
    assert cli("sky", "start", "--yes", "--json").json("sky")["problem"] == ""
    assert asked.questions[-1] == "start"
    with sqlite3.connect(seed.home.settings.sqlite_path) as connection:
        (who,) = connection.execute("SELECT actor FROM audit WHERE action = 'start sky'").fetchone()
    assert who.startswith("local:")
    asked.answers["health"] = ELSEWHERE
    elsewhere = cli("sky", "start", "--yes")
    assert elsewhere.code == 4
    assert "It wants a login." in elsewhere.err


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 4)])
def test_a_person_is_asked_before_an_api_server_is_started(
    cli: Any, seed: Any, asked: Asked, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    asked.answers |= {"health": ABSENT, "start": HEALTHY}
    monkeypatch.setattr(sky, "interactive", lambda: True)
    result = cli("sky", "start", stdin=answer)
    assert result.code == code
    assert ("start" in asked.questions) == (code == 0)
    assert "Start it? [y/N]" in result.err


def test_a_launch_elsewhere_needs_the_api_server_and_a_local_one_does_not(cli: Any, seed: Any, asked: Asked) -> None:
    asked.answers["health"] = ABSENT
    elsewhere = cli("launch", "demo.yaml", "python=", "--infra", "slurm/lab", "--gpus", "H100:8", "--nodes", "2")
    assert elsewhere.code == 4
    assert "ainfinity sky start" in elsewhere.err
    asked.answers["health"] = ELSEWHERE
    assert "wants a login" in cli("launch", "demo.yaml", "python=", "--infra", "slurm/lab", "--yes").err
    assert cli("list", "--json").json("list") == []
    asked.questions.clear()
    assert cli("launch", "demo.yaml").code == 0
    assert asked.questions == []


def test_options_of_a_launch_are_settings_that_a_change_wins_over(cli: Any, seed: Any, asked: Asked) -> None:
    words = ("--infra", "slurm/lab", "--gpus", "H100:8", "--nodes", "2", "--storage", "/shared/x", "--mode", "cluster")
    shown = cli("launch", "demo.yaml", *words, "python=", "nodes=3", "--dry-run", "--json").json("launch-dry-run")
    found = {key: shown["spec"]["resources"][key] for key in ("infra", "gpus", "nodes", "storage", "mode", "spot")}
    assert found == {
        "infra": "slurm/lab",
        "gpus": "H100:8",
        "nodes": 3,
        "storage": "/shared/x",
        "mode": "cluster",
        "spot": False,
    }


@pytest.fixture
def far(seed: Any) -> Any:
    """A running job elsewhere."""
    row = seed.running("far")
    with sqlite3.connect(seed.home.settings.sqlite_path) as connection:
        connection.execute("UPDATE job SET infra = 'slurm/lab'")
        connection.execute("UPDATE attempt SET backend = 'skypilot'")
    return row


#: What sshd gets is the words after the host, joined by blanks, for the shell of the user there.
SSH = """#!/bin/sh
test "$1 $2" = "-F /cfg" || exit 99
echo "host $5" >&2
shift 5
test "$1" = -- && shift
exec sh -c "${*:-sh}"
"""
ANSWER = """
from ainfinity.services import outside
def answer(question, arguments, limit):
    return {"config": "/cfg", "host": f"{arguments['name']}/{arguments['node']}"}
outside.run_ask = answer
from ainfinity.cli.main import main
main()
"""


@pytest.fixture
def there(home: Any, far: Any) -> Callable[..., Any]:
    """Run a command as a process, with an `ssh` that does here what it would do there."""
    ssh = home.path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(SSH)
    ssh.chmod(0o755)
    environment = home.environment | {"PATH": f"{ssh.parent}:{home.environment['PATH']}"}

    def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", ANSWER, *words]
        return subprocess.run(
            command, env=environment, cwd=home.work, input=stdin, capture_output=True, text=True, timeout=60
        )

    return run


def test_exec_passes_arguments_and_the_exit_code_on(there: Any, far: Any) -> None:
    done = there("exec", "far", "--", "printf", "%s|", "a b", "$HOME", "it's", "--json")
    assert (done.returncode, done.stdout) == (0, "a b|$HOME|it's|--json|")
    assert f"host ain-00000000-{far.id}-a1/0" in done.stderr
    assert there("exec", "far", "sh", "-c", "exit 7").returncode == 7
    assert there("exec", "far", "--", "sh", "-c", "kill -TERM $$").returncode == 143


def test_ssh_takes_a_pipe(there: Any) -> None:
    done = there("ssh", "far", "--node", "1", stdin="echo on the machine; exit 5\n")
    assert (done.returncode, done.stdout) == (5, "on the machine\n")
    assert "-a1/1" in done.stderr


def test_a_machine_that_is_not_there_cannot_be_reached(cli: Any, seed: Any, asked: Asked) -> None:
    seed.running("here")
    for command in (("ssh", "here"), ("exec", "here", "--", "true")):
        result = cli(*command)
        assert result.code == 3
        assert "runs on this machine" in result.err
    assert cli("ssh", "nowhere").code == 102
    assert cli("exec", "here").code == 2


def test_costs_stand_in_list_and_show(cli: Any, seed: Any, far: Any) -> None:
    seed.event(far, "attempt.given", price_per_hour=40.0, given="2x H100:8 slurm/lab")
    seed.running("blind")
    with sqlite3.connect(seed.home.settings.sqlite_path) as connection:
        connection.execute("UPDATE job SET infra = 'k8s', price_per_hour = NULL WHERE name = 'blind'")
        connection.execute("UPDATE job SET priced_from = priced_from - 3600 WHERE name = 'far'")
        connection.execute("UPDATE attempt SET priced_from = priced_from - 3600 WHERE job_id = ?", (far.id,))
    rows = {row["name"]: row for row in cli("list", "--json").json("list")}
    assert rows["far"]["cost"] == pytest.approx(40.0, abs=1.0)
    assert rows["blind"]["cost"] is None
    lines = {line.split()[0]: line for line in cli("list").out.splitlines()}
    assert "$40." in lines["far"]
    assert "unknown" in lines["blind"]
    page = cli("show", "far").out
    assert "so far, at $40.00/h" in page
    assert "2x H100:8 slurm/lab" in page
    assert "unknown" in cli("show", "blind").out
    assert "$0" not in cli("show", "blind").out + "".join(lines.values())
    csv = cli("list", "--csv").out.splitlines()
    assert csv[0].endswith("cost,price_per_hour,kept_until,stale_since")


@pytest.mark.usefixtures("with_database")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["gpus", "H100:many"], 2, "H100:8"),
        (["orphans", "kep", "x"], 2, "keep NAME"),
        (["orphans", "keep"], 2, "ainfinity orphans keep NAME"),
        (["orphans", "keep", "ain-00000000-zzzzzzzzzz-a1"], 102, "no orphan"),
        (["sky", "strat"], 2, "start"),
        (["extend", "nope", "soon"], 2, "30m, 2h or 1d"),
        (["extend", "nope", "-2h"], 2, ""),
        (["extend", "nope", "0h"], 2, "no time"),
        (["extend", "nope"], 2, "TIME"),
        (["keep", "nope", "x"], 2, "no time"),
        (["extend", "nope", "+2h"], 102, "no job"),
        (["keep", "nope", "2h"], 102, "no job"),
        (["teardown", "nope"], 3, "--yes"),
        (["teardown", "nope", "--yes"], 102, "no job"),
        (["ssh", "nope"], 102, "no job"),
        (["ssh", "nope", "--node", "-1"], 2, "--node"),
        (["exec", "nope", "--", "true"], 102, "no job"),
        (["adopt", "--managed", "1", "--cluster", "x"], 2, "exclude"),
        (["adopt", "--managed", "x"], 2, "number"),
        (["launch", "demo.yaml", "--nodes", "0"], 2, "--nodes"),
        (["launch", "demo.yaml", "--mode", "fast", "--infra", "k8s", "python="], 2, "mode"),
        (["launch", "demo.yaml", "--gpus", "8x"], 2, "gpus"),
        (["launch", "demo.yaml", "--storage", "over/there"], 2, "storage"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_mistakes(cli: Any, asked: Asked, arguments: list[str], code: int, message: str) -> None:
    result = cli(*arguments)
    assert result.code == code, result.err
    assert message in result.err
    assert "Traceback" not in result.err
    assert result.out == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_how_far_a_transfer_is_stands_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(pull.time, "monotonic", lambda: now[0])
    stream = Terminal()
    line = pull.TransferLine(stream)
    line.show(1_000_000, 5_000_000)  # what an earlier try brought
    now[0] += 2.0
    line.show(3_000_000, 5_000_000)
    line.show(3_000_001, 5_000_000)  # too soon to tell
    line.close()
    assert stream.getvalue() == "\r3 MB of 5 MB (60 %), 1 MB/s\x1b[K\r\x1b[K"
    elsewhere = io.StringIO()
    line = pull.TransferLine(elsewhere)
    line.show(0, 0)
    line.close()
    assert elsewhere.getvalue() == ""


def test_dollars_are_never_nothing_by_accident() -> None:
    amounts = (None, float("nan"), 0.0, 0.000018, 0.012, 3.074, 12_345.6)
    told = ["unknown", "unknown", "free", "<$0.001", "$0.012", "$3.07", "$12,345.60"]
    assert [output.money(each) for each in amounts] == told
    assert [output.per_hour(each) for each in (None, 0.0, 0.012)] == ["unknown", "free", "$0.012/h"]
    assert [output.cost_so_far(0.0, price) for price in (None, 2.0, 0.0)] == ["-", "-", "free"]

"""The whole way through real processes: command, client, store, worker, local compute; only the trainer is quick."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

CANARY = "canary-4f1c9a-value"


def test_a_job_runs_to_its_end_and_can_be_looked_at(busy_home: Any, cli_of: Any) -> None:
    busy_home.job_file("good")
    done = busy_home.process("launch", "good.yaml", "--wait", "--json")
    assert done.code == 0, done.err
    row = done.json("launch")
    assert row["state"] == "succeeded"
    assert "Held-out loss: 3.5 before, 2.5 after" in done.err
    assert f"{row['id']}/output/adapter" in done.err
    assert "good  launching" in done.err

    cli = cli_of(busy_home)
    assert cli("wait", "good").code == 0
    assert cli("show", "good", "--json").json("show")["result"]["eval_last"]["loss"] == 2.5
    points = cli("metrics", "good", "--json").json("metrics")
    assert [point["step"] for point in points] == [1, 2, 3, 4]
    csv = cli("metrics", "good", "--csv", "--name", "loss").out.splitlines()
    assert csv[0] == "attempt,step,at,loss"
    assert csv[1].endswith(",3.4")
    types = [event["type"] for event in cli("events", "good", "--json").json("events")]
    assert types[0] == "job.submitted"
    assert types[-1] == "job.succeeded"
    log = cli("logs", "good").out
    assert "plain text from a library" in log
    assert "[step] step 4  total_steps 4  loss 3.1" in log
    assert '"kind":"step"' in cli("logs", "good", "--raw").out
    assert len(cli("logs", "good", "--json").json("logs")["lines"]) > 8

    pulled = cli("pull", "good", "--json").json("pull")
    assert pulled["what"] == "adapter"
    assert Path(busy_home.work / "good" / "adapter" / "adapter.bin").read_bytes() == b"weights"
    assert cli("pull", "good", "model").code == 102
    assert cli("pull", "good", "nonsense").code == 2


def test_a_failed_job_is_100_and_says_why(busy_home: Any, cli_of: Any) -> None:
    busy_home.job_file("bad", way="fail")
    cli = cli_of(busy_home)
    done = cli("launch", "bad.yaml", "--wait")
    assert done.code == 100
    assert "every row is masked" in done.err
    assert "ainfinity logs bad" in done.err
    assert cli("wait", "bad", "--json").json("wait")["error_code"] == "all_masked"
    assert cli("pull", "bad").code == 102


def test_ctrl_c_only_detaches_and_cancel_ends(busy_home: Any, cli_of: Any, wait_for: Callable[..., Any]) -> None:
    busy_home.job_file("long", way="slow")
    waiting = busy_home.start("launch", "long.yaml", "--wait")
    cli = cli_of(busy_home)

    def running() -> bool:
        return any(row["name"] == "long" for row in json.loads(cli("list", "--json", "--state", "running").out))

    wait_for(running)
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 130
    assert "the job goes on" in err
    assert "ainfinity wait long" in err
    assert "Traceback" not in err
    assert running()

    late = cli("wait", "long", "--timeout", "0.3")
    assert late.code == 101
    assert cli("pull", "long").code == 101
    follower = busy_home.start("logs", "-f", "--json", "long")
    witness = busy_home.start("events", "-f", "--json", "long")
    assert cli("cancel", "long", "--json").json("cancel")["jobs"][0]["name"] == "long"
    assert cli("wait", "long").code == 103
    out, _ = follower.communicate(timeout=60)
    assert follower.returncode == 0
    witness.send_signal(signal.SIGINT)
    told, _ = witness.communicate(timeout=60)
    assert witness.returncode == 130
    assert [json.loads(line)["type"] for line in told.splitlines()][-1] == "job.cancelled"
    lines = [json.loads(line)["line"] for line in out.splitlines()]
    assert any('"kind":"stopped"' in line for line in lines)

    assert cli("cancel", "long").code == 3
    assert cli("retry", "long", "--from", "99").code == 102
    retried = cli("retry", "long", "sample_prompts=[ok]", "name=long-2", "--json")
    assert retried.json("retry")["name"] == "long-2"
    assert cli("wait", "long-2").code == 0
    assert cli("delete", "long-2").code == 3
    assert cli("delete", "long-2", "--yes").code == 0
    assert cli("show", "long-2").code == 102


def test_a_secret_reaches_the_trainer_and_nothing_else(busy_home: Any, cli_of: Any) -> None:
    cli = cli_of(busy_home)
    assert cli("secrets", "set", "CANARY_TOKEN", stdin=f"{CANARY}\n").code == 0
    busy_home.job_file("keeper", extra="secrets: [CANARY_TOKEN]\n")
    done = busy_home.process("launch", "keeper.yaml", "--wait")
    assert done.code == 0, done.err
    seen = [done.out, done.err]
    logs = busy_home.process("logs", "keeper")  # a process that has never seen the value
    seen += [logs.out, logs.err]
    for command in (("show",), ("show", "--reproduce"), ("events",), ("metrics",)):
        seen.append(cli(*command, "keeper").out)
    seen.append(cli("secrets", "list", "--json").out)
    assert "token in the log: [hidden]" in "".join(seen)  # so the trainer had it
    assert CANARY not in "".join(seen)
    for path in busy_home.settings.data_dir.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert CANARY.encode() not in path.read_bytes(), path
    # The negative control: it is in the one place where it must be.
    assert CANARY in (busy_home.settings.config_dir / "secrets.json").read_text()


def test_the_worker_is_found_stopped_and_started(busy_home: Any, cli_of: Any) -> None:
    cli = cli_of(busy_home)
    started = cli("worker", "start", "--json")
    assert started.json("worker")["alive"], started.err
    assert cli("worker", "status").code == 0
    stopped = cli("worker", "stop", "--json")
    assert not stopped.json("worker")["alive"], stopped.err
    assert "No worker is alive" in cli("worker", "stop").err


def test_the_same_key_twice_is_one_job(busy_home: Any, cli_of: Any) -> None:
    cli = cli_of(busy_home)
    busy_home.job_file("keyed")
    first = cli("launch", "keyed.yaml", "--key", "once", "--json").json("launch")
    assert cli("launch", "keyed.yaml", "--key", "once", "--json").json("launch")["id"] == first["id"]
    assert cli("launch", "keyed.yaml", "lr=1e-3", "--key", "once", "--json").error()["code"] == "key_reused"
    assert cli("wait", "keyed").code == 0

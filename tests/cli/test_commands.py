"""Each command on jobs in every state: what it writes, where, and its exit code."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from typing import Any

import jsonschema
import pytest

from ainfinity.cli import json_models
from ainfinity.client import local
from ainfinity.core.exceptions import NotFound


def test_list_shows_the_newest_first_and_says_when_there_are_more(cli: Any, seed: Any) -> None:
    for number in range(4):
        seed.job(f"job-{number}")
    seed.running("run", extra="tags: [big]\nnote: see here\n")
    result = cli("list")
    lines = result.out.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "STEP", "LOSS", "ETA", "AGE", "WHERE", "MODEL", "ID"]
    assert lines[1].split()[:5] == ["run", "running", "3/12", "1.25", "1m30s"]
    assert [line.split()[0] for line in lines[2:]] == ["job-3", "job-2", "job-1", "job-0"]
    assert result.err == ""
    short = cli("list", "--limit", "2")
    assert len(short.out.splitlines()) == 3
    assert "--all" in short.err
    assert len(cli("list", "--limit", "2", "--all", "--json").json("list")) == 5


def test_list_filters(cli: Any, seed: Any) -> None:
    seed.running("alpha", extra="tags: [big, blue]\nnote: see here\n")
    seed.over("failed", "beta", code="out_of_memory", message="too big")

    def names(*arguments: str) -> list[str]:
        return [row["name"] for row in cli("list", "--json", *arguments).json("list")]

    assert names("--state", "running") == ["alpha"]
    assert names("--state", "live") == ["alpha"]
    assert names("--state", "failed,running") == ["beta", "alpha"]
    assert names("--tag", "big", "--tag", "blue") == ["alpha"]
    assert names("--tag", "bi") == []
    assert names("see") == ["alpha"]
    assert names("--owner", "local:nobody") == []
    assert "No job fits" in cli("list", "nothing").err
    wrong = cli("list", "--state", "runing")
    assert wrong.code == 2
    assert "Did you mean running?" in wrong.err


def test_list_as_csv_can_be_read_back(cli: Any, seed: Any) -> None:
    seed.running("alpha", extra='note: "a, \\"b\\""\ntags: [x, y]\n')
    rows = list(csv.DictReader(io.StringIO(cli("list", "--csv").out)))
    assert (rows[0]["name"], rows[0]["tags"], rows[0]["step"], rows[0]["finished_at"]) == ("alpha", "x y", "3", "")
    assert cli("list", "--csv", "--json").code == 2


def test_list_without_a_database_is_empty_and_makes_none(cli: Any, home: Any) -> None:
    result = cli("list", "--json")
    assert result.json("list") == []
    assert not home.settings.data_dir.exists()
    assert "No jobs yet" in cli("list").err


def test_show_tells_everything(cli: Any, seed: Any) -> None:
    row = seed.over("failed", "beta", code="out_of_memory", message="CUDA out of memory")
    result = cli("show", "beta")
    for part in (
        row.id,
        "failed",
        "out_of_memory: CUDA out of memory",
        "3/12",
        "org/model",
        "attempt 1",
        "exit code 1",
    ):
        assert part in result.out
    detail = cli("show", row.id[:6], "--json").json("show")
    assert detail["job"]["id"] == row.id
    assert detail["spec"]["recipe"]["model"] == "org/model"


def test_show_reproduce_is_a_script_that_makes_the_same_job(cli: Any, seed: Any, home: Any) -> None:
    row = seed.over("succeeded", "alpha")
    script = cli("show", "alpha", "--reproduce").out
    assert cli("show", "alpha", "--reproduce", "--json").json("show-reproduce")["script"] == script.rstrip("\n")
    body = script.split("<<'AINFINITY_JOB'\n")[1].split("\nAINFINITY_JOB")[0]
    again = cli("launch", "-", "name=beta", "--json", stdin=body).json("launch")
    assert again["name"] == "beta"
    first, second = (cli("show", job, "--json").json("show")["spec"] for job in (row.id, "beta"))
    assert first | {"name": ""} == second | {"name": ""}


def test_names_and_notes_cannot_drive_the_terminal(cli: Any, seed: Any) -> None:
    row = seed.running("alpha")
    seed.log(row, "plain\x1b]0;title\x07\n\x1b[31mred\n")
    seed.event(row, "job.failed", code="x", message="a\x1b[2Jb")
    for command in ("show", "logs", "events", "wait"):
        result = cli(command, "alpha")
        assert "\x1b" not in result.out + result.err, command
    assert "\x1b" in cli("logs", "alpha", "--raw").out  # the control: it is there for who asks for it


def test_logs_tail_and_attempts(cli: Any, seed: Any) -> None:
    row = seed.over("succeeded", "alpha")
    seed.log(row, "".join(f"line {number}\n" for number in range(100)))
    assert cli("logs", "alpha").out.splitlines()[0] == "line 0"
    assert cli("logs", "alpha", "--tail", "2").out.splitlines() == ["line 98", "line 99"]
    assert cli("logs", "alpha", "--tail", "2", "--json").json("logs") == {"attempt": 1, "lines": ["line 98", "line 99"]}
    assert cli("logs", "alpha", "--attempt", "7").code == 102
    followed = [json.loads(line) for line in cli("logs", "alpha", "-f", "--tail", "1", "--json").out.splitlines()]
    assert followed == [{"attempt": 1, "line": "line 99"}]
    jsonschema.validate(followed[0], json_models.json_schema("logs-line"))
    seed.job("fresh")
    assert "has no log yet" in cli("logs", "fresh").err


def test_events_in_every_form(cli: Any, seed: Any) -> None:
    seed.job("other")
    row = seed.over("cancelled", "alpha")
    events = cli("events", "alpha", "--json").json("events")
    assert {event["job_id"] for event in events} == {row.id}
    later = cli("events", "--after", str(events[2]["seq"]), "--json").json("events")
    assert later[0]["seq"] == events[2]["seq"] + 1
    assert len(cli("events", "--csv").out.splitlines()) == len(cli("events").out.splitlines()) + 1
    limited = cli("events", "--limit", "1")
    assert "--after 1" in limited.err
    assert cli("events", "--csv", "--json").code == 2


def test_approval(cli: Any, seed: Any) -> None:
    file = seed.home.job_file("careful", extra="policy: {approval: required}\n")
    asked = cli("launch", str(file), "--json")
    assert asked.json("launch")["state"] == "awaiting_approval"
    assert "ainfinity approve careful" in asked.err
    assert cli("approve", "careful", "--plan", "0123456789abcdef", "--json").error()["code"] == "plan_changed"
    assert cli("approve", "careful", "--json").json("approve")["state"] == "queued"
    assert cli("approve", "careful").code == 3

    seed.home.job_file("other", extra="policy: {approval: required}\n")
    cli("launch", "other.yaml")
    assert cli("reject", "other", "--reason", "too dear", "--json").json("reject")["state"] == "rejected"
    assert cli("wait", "other").code == 103
    at_once = cli("launch", "other.yaml", "name=third", "--yes", "--json")
    assert at_once.json("launch")["state"] == "queued"


def test_cancel_several_reports_each(cli: Any, seed: Any) -> None:
    seed.job("one")
    seed.over("succeeded", "two")
    result = cli("cancel", "one", "two", "three", "--json")
    document = result.json("cancel")
    assert [row["state"] for row in document["jobs"]] == ["cancelled"]
    assert [error["code"] for error in document["errors"]] == ["wrong_state", "not_found"]
    assert result.code == 3
    assert cli("cancel", "three").code == 102


def test_retry(cli: Any, seed: Any) -> None:
    row = seed.over("failed", "alpha", code="x", message="y")
    assert cli("retry", "alpha", "lr=1e-3", "--from", "3").code == 2
    assert cli("retry", "alpha", "lrr=3").code == 2
    assert cli("retry", "alpha", "--json").json("retry")["id"] == row.id
    assert cli("retry", "alpha").code == 3


def test_delete_asks(cli: Any, seed: Any) -> None:
    seed.over("failed", "alpha", code="x", message="y")
    refused = cli("delete", "alpha", "--json")
    assert refused.code == 3
    assert "--yes" in refused.error()["hint"]
    assert cli("delete", "alpha", "--yes", "--json").json("delete")["jobs"][0]["name"] == "alpha"
    seed.job("live")
    assert cli("delete", "live", "--yes").code == 3


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 100), ("cancelled", 103)])
def test_wait_for_what_is_over_tells_how_it_ended(cli: Any, seed: Any, state: str, code: int) -> None:
    seed.over(state, "alpha", code="x", message="because")
    result = cli("wait", "alpha", "--json")
    assert result.code == code
    assert result.json("wait")["state"] == state
    assert state in result.err


def test_wait_gives_up_in_time(cli: Any, seed: Any) -> None:
    seed.running("alpha")
    result = cli("wait", "alpha", "--timeout", "0.05")
    assert result.code == 101
    assert "alpha  running  step 3/12 (25 %)  loss 1.25  1m30s left" in result.err
    assert "not over" in result.err


def test_metrics_of_a_job_without_any(cli: Any, seed: Any) -> None:
    seed.job("alpha")
    assert "No step" in cli("metrics", "alpha").err
    assert cli("metrics", "alpha", "--json").json("metrics") == []
    assert cli("metrics", "alpha", "--json", "--csv").code == 2


def test_dry_run_launches_nothing(cli: Any, seed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    document = cli("launch", "demo.yaml", "--dry-run", "--json").json("launch-dry-run")
    assert document["plan"]["plan"]["data_rows"] == 2
    assert document["task"] is None
    elsewhere = ("launch", "demo.yaml", "python=", "infra=k8s", "gpus=H100:8", "--dry-run", "--json")
    document = cli(*elsewhere).json("launch-dry-run")
    assert document["task"]["resources"]["accelerators"] == "H100:8"
    assert document["refused"] is None
    monkeypatch.setattr(local, "installed_backends", lambda: ("local",))
    document = cli(*elsewhere).json("launch-dry-run")
    assert document["task"]["resources"]["accelerators"] == "H100:8"
    assert document["refused"]["code"] == "not_supported"
    text = cli("launch", "demo.yaml", "--dry-run").out
    assert "plan_hash:" in text
    assert cli("list", "--json").json("list") == []


def test_a_name_in_use_and_an_infra_that_is_not_there(cli: Any, seed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "installed_backends", lambda: ("local",))
    seed.job("demo")
    assert cli("launch", "demo.yaml", "--json").error()["code"] == "name_taken"
    assert cli("launch", "demo.yaml", "name=x", "python=", "infra=k8s", "--json").error()["code"] == "not_supported"
    missing = cli("launch", "demo.yaml", "name=x", "secrets=NOT_THERE")
    assert missing.code == 102
    assert "ainfinity secrets set NOT_THERE" in missing.err


def test_recipes(cli: Any) -> None:
    rows = cli("recipes", "--json").json("recipes")
    assert rows
    name = rows[0]["name"]
    assert name in cli("recipes").out
    assert cli("recipes", name).out.rstrip("\n") == rows[0]["text"].rstrip("\n")
    assert cli("recipes", name, "--json").json("recipes-one")["name"] == name
    assert cli("recipes", "nope").code == 102


def test_every_document_has_a_schema(cli: Any) -> None:
    names = cli("schema").out.split()
    assert names == list(json_models.MODELS)
    for name in names:
        jsonschema.Draft202012Validator.check_schema(json.loads(cli("schema", name).out))
    with pytest.raises(NotFound):
        json_models.json_schema("nope")
    assert cli("schema", "nope").code == 102


def test_a_validated_document_could_fail(cli: Any, seed: Any) -> None:
    """The negative control of all validation here: a wrong document does not pass."""
    seed.job("alpha")
    document = json.loads(cli("list", "--json").out)
    document[0]["submitted_at"] = "yesterday"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json_models.json_schema("list"))


def test_databases_that_cannot_be_used(cli: Any, home: Any, seed: Any) -> None:
    seed.job("alpha")
    path = home.settings.sqlite_path
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    for command in (("list",), ("show", "alpha"), ("launch", "demo.yaml")):
        result = cli(*command)
        assert result.code == 4, command
        assert "newer" in result.err
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    seed.store.close()
    path.with_name(path.name + "-wal").unlink(missing_ok=True)
    path.write_bytes(b"this is no database" * 1000)
    for command in (("list",), ("show", "alpha")):
        result = cli(*command)
        assert result.code == 4, command
        assert "Traceback" not in result.err


def test_a_locked_database_is_4(cli: Any, home: Any, seed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seed.job("alpha")
    monkeypatch.setenv("AINFINITY_BUSY_TIMEOUT", "0.2")
    holder = sqlite3.connect(home.settings.sqlite_path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        result = cli("cancel", "alpha", "--json")
    finally:
        holder.close()
    assert result.code == 4
    assert result.json("cancel")["errors"][0]["code"] == "database_locked"


def test_an_empty_progress_is_no_number(cli: Any, seed: Any) -> None:
    seed.job("alpha")
    assert cli("list").out.splitlines()[1].split()[:5] == ["alpha", "queued", "-", "-", "-"]

"""`ainfinity data`, and jobs that name what it keeps."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest


def test_data_is_added_listed_shown_used_and_removed(cli: Any, home: Any, seed: Any) -> None:
    content = (home.work / "rows.jsonl").read_bytes()
    row = cli("data", "add", "rows.jsonl", "--json").json("data-add")
    assert (row["name"], row["rows"], row["sha256"]) == ("rows", 2, hashlib.sha256(content).hexdigest())
    again = cli("data", "add", "rows.jsonl")
    assert again.out == "rows\n"
    assert "data: rows" in again.err
    assert cli("data", "list", "--json").json("data-list") == [row]
    assert cli("data", "list").out.splitlines()[1].split()[:2] == ["rows", "2"]
    shown = cli("data", "show", row["sha256"][:10], "--json").json("data-show")
    assert shown["dataset"] == row
    assert Path(shown["path"]).read_bytes() == content
    assert row["sha256"] in cli("data", "show", "rows").out

    launched = cli("launch", "demo.yaml", "data=rows", "--json").json("launch")
    assert cli("show", launched["id"], "--json").json("show")["spec"]["recipe"]["data"] == shown["path"]
    refused = cli("data", "rm", "rows", "--json")
    assert refused.code == 3
    assert "demo" in refused.error()["message"]
    assert cli("cancel", "demo").code == 0
    assert cli("data", "rm", "rows", "--json").json("data-rm") == row
    assert not Path(shown["path"]).exists()
    assert "No data is kept yet" in cli("data", "list").err


@pytest.mark.usefixtures("with_database")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["data"], 2, "Missing command"),
        (["data", "ad"], 2, "add"),
        (["data", "add"], 2, "FILE"),
        (["data", "add", "nowhere.jsonl"], 2, "no such file"),
        (["data", "add", "."], 2, "no regular file"),
        (["data", "add", "broken.jsonl"], 2, "broken.jsonl:1"),
        (["data", "add", "rows.jsonl", "--name", "A/B"], 2, "cannot name"),
        (["data", "show", "nothing"], 102, "ainfinity data add"),
        (["data", "rm", "nothing"], 102, "no data set"),
        (["launch", "demo.yaml", "data=nothing"], 102, "no file and no data set 'nothing'"),
        (["launch", "demo.yaml", f"data=sha256:{'0' * 64}"], 102, "no data set"),
        (["launch", "demo.yaml", "data=sha256:12"], 2, "no file"),
    ],
)
def test_mistakes(cli: Any, home: Any, arguments: list[str], code: int, message: str) -> None:
    (home.work / "broken.jsonl").write_text("{\n")
    result = cli(*arguments)
    assert result.code == code, result.err
    assert message in result.err
    assert "Traceback" not in result.err


def test_names_complete(cli: Any, home: Any) -> None:
    cli("data", "add", "rows.jsonl", "--name", "support-chats")
    asked = {"_AINFINITY_COMPLETE": "complete_bash", "COMP_WORDS": "ainfinity data show sup", "COMP_CWORD": "3"}
    assert home.process(**asked).out.split() == ["support-chats"]
    other = asked | {"COMP_WORDS": "ainfinity orphans keep ain", "COMP_CWORD": "3"}
    assert home.process(**other).out.split() == []

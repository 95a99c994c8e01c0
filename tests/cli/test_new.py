"""`ainfinity new`: what it says about data, and that what it writes can be launched."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ainfinity.schema.document import parse_document
from ainfinity.schema.job_file import load_job_file
from ainfinity.schema.new_job import job_text, scalar

CHAT = '{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "yes"}]}\n'


def test_the_file_it_writes_is_a_job(cli: Any, home: Any) -> None:
    (home.work / "many.jsonl").write_text("".join(CHAT % ("x" * number) for number in range(60)))
    (home.work / "models" / "tiny").mkdir(parents=True)
    result = cli("new", "--model", "models/tiny", "--data", "many.jsonl", "-o", "made.yaml")
    assert result.code == 0, result.err
    assert result.out == "made.yaml\n"
    assert "60 rows" in result.err
    assert "line 60" in result.err  # the longest
    assert "no config.json" in result.err
    spec = load_job_file(home.work / "made.yaml")
    assert spec.recipe.data == str(home.work / "many.jsonl")
    assert spec.recipe.model == str(home.work / "models" / "tiny")
    assert spec.recipe.eval_rows == 3
    assert spec.recipe.max_length == 256
    assert cli("launch", "made.yaml", "--dry-run").code == 0
    assert cli("new", "--model", "m", "--data", "many.jsonl", "-o", "made.yaml").code == 3
    assert cli("new", "--model", "m", "--data", "many.jsonl", "-o", "made.yaml", "--force").code == 0


def test_every_commented_setting_can_be_uncommented(home: Any) -> None:
    """The defaults shown are the defaults: with all of them written out the job is the same."""
    text = job_text("x", {"model": "org/m", "data": "rows.jsonl", "lora": {"r": 8, "alpha": 16}}, "about")
    short = home.work / "short.yaml"
    short.write_text(text)
    shown = [line for line in text.splitlines() if not line.startswith(("# about", "# Where", "# What", "# Names"))]
    full = [line.replace("# ", "", 1) if line.lstrip().startswith("# ") else line for line in shown]
    full = [line for line in full if "More settings" not in line and not line.startswith(("tags", "note", "secrets"))]
    long = home.work / "long.yaml"
    long.write_text("\n".join(full).replace("\n  More", "\n# More"))
    assert parse_document(long.read_bytes(), label="x", folder=home.work).data["policy"]["retries"] == 0
    assert load_job_file(long) == load_job_file(short)


@pytest.mark.parametrize(
    "text", ["no", "12", "1e-4", "a: b", "", " x", "null", "x # y", "- a", "ok", "a/b", "{", "ü", "'"]
)
def test_text_survives_as_text(text: str, home: Any) -> None:
    document = parse_document(f"key: {scalar(text)}\n".encode(), label="x", folder=home.work)
    assert document.data == {"key": text}


def test_to_stdout_and_as_json(cli: Any, home: Any) -> None:
    assert cli("new", "--model", "org/m", "--data", "rows.jsonl").out.startswith("# rows.jsonl: 2 rows")
    document = cli("new", "--model", "org/m", "--data", "rows.jsonl", "--json").json("new")
    assert document["path"] is None
    assert "name: rows" in document["text"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", "empty"),
        ("a.jsonl", CHAT % "x" + "{nope}\n", "a.jsonl:2"),
        ("a.jsonl", CHAT % "x" + '{"messages": []}\n', "a.jsonl:2"),
        ("a.jsonl", '{"prompt": "a", "completion": "b"}\n', "jq -c"),
        ("a.jsonl", '{"instruction": "a", "output": "b"}\n', "instruction/output"),
        ("a.jsonl", '{"conversations": [{"from": "human", "value": "a"}]}\n', "conversations"),
        ("a.json", '[{"messages": []}]', "JSON array"),
        ("a.parquet", "PAR1xxxx", "Parquet"),
        ("a.csv", "prompt,answer\n", "a.csv:1"),
        ("a.jsonl", '{"messages": [{"role": "user", "content": "x"}]}\n', "no row has an assistant message"),
    ],
)
def test_data_that_cannot_be_used(cli: Any, home: Any, name: str, content: str, message: str) -> None:
    (home.work / name).write_text(content)
    result = cli("new", "--model", "org/m", "--data", name, "-o", "made.yaml")
    assert result.code == 2
    assert message in result.err
    assert not (home.work / "made.yaml").exists()


def test_rows_that_train_nothing_are_told(cli: Any, home: Any) -> None:
    (home.work / "a.jsonl").write_text(CHAT % "x" + '{"messages": [{"role": "user", "content": "x"}]}\n')
    assert (
        "1 rows have no assistant message and will train nothing, the first in line 2"
        in cli("new", "--model", "org/m", "--data", "a.jsonl").err
    )


def test_missing_files(cli: Any) -> None:
    assert cli("new", "--model", "org/m", "--data", "no.jsonl").code == 2
    assert cli("new", "--model", "./no", "--data", "rows.jsonl").code == 102
    assert cli("new", "--model", "org/m", "--data", "rows.jsonl", "-o", "no/folder/x.yaml").code == 4
    assert cli("new", "--data", "rows.jsonl").code == 2


def test_the_conversions_it_proposes_are_right(home: Any) -> None:
    """What jq would make, by hand: the proposal names the right columns."""
    row = json.loads('{"prompt": "a", "completion": "b"}')
    made = {
        "messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
    }
    (home.work / "made.jsonl").write_text(json.dumps(made) + "\n")
    from ainfinity.cli.new import look

    assert look(home.work / "made.jsonl").roles == {"user": 1, "assistant": 1}

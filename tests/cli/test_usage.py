"""Bad input: one clear message, the right exit code, the next step, and never a traceback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ainfinity.cli import main as main_module
from ainfinity.cli.main import run
from ainfinity.core import exceptions
from ainfinity.core.exceptions import AinfinityError

CANARY = "hf_CanaryCanaryCanaryCanary1234"

USAGE = [
    (["lst"], 2, "Did you mean 'list'"),
    (["list", "--limt", "3"], 2, "--limit"),
    (["list", "--limit", "0"], 2, "--limit"),
    (["list", "--limit", "x"], 2, "--limit"),
    (["show"], 2, "JOB"),
    (["launch"], 2, "FILE|RECIPE"),
    (["worker", "strat"], 2, "start"),
    (["completion", "tcsh"], 2, "bash, zsh, fish"),
    (["launch", "nowhere.yaml"], 102, "no file"),
    (["launch", "nosuchrecipe"], 102, "ainfinity recipes"),
    (["launch", "smollm2-135m-docstring", "data=rows.jsonl"], 102, "smollm2-135m-docstrings"),
    (["launch", "./"], 2, "is a folder"),
    (["launch", "demo.yaml", "lrr=1"], 2, "Did you mean lr?"),
    (["launch", "demo.yaml", "lr"], 2, "key=value"),
    (["launch", "demo.yaml", "data=no.jsonl"], 2, "no file"),
    (["launch", "demo.yaml", "model=./no"], 2, "no folder"),
    (["launch", "demo.yaml", "data=empty.jsonl"], 2, "empty"),
    (["launch", "demo.yaml", "data=broken.jsonl"], 2, "broken.jsonl:2"),
    (["launch", "demo.yaml", f"note={CANARY}"], 2, "Hugging Face token"),
    (["launch", "bad.yaml"], 2, "bad.yaml:3: recipe.lrr: unknown key; did you mean lr?"),
    (["show", "nope"], 102, "no job"),
    (["logs", "nope"], 102, "no job"),
    (["logs", "nope", "-f"], 102, "no job"),
    (["metrics", "nope"], 102, "no job"),
    (["events", "nope"], 102, "no job"),
    (["wait", "nope"], 102, "no job"),
    (["cancel", "nope"], 102, "no job"),
    (["retry", "nope"], 102, "no job"),
    (["approve", "nope"], 102, "no job"),
    (["reject", "nope"], 102, "no job"),
    (["delete", "nope", "--yes"], 102, "no job"),
    (["pull", "nope"], 102, "no job"),
    (["secrets", "rm", "NOPE"], 102, "no stored secret"),
    (["secrets", "set", "A-B"], 2, "letters, digits"),
    (["secrets", "set", f"TOKEN={CANARY}"], 2, "stdin"),
    (["secrets", "set", "TOKEN"], 2, "No value"),
    ([], 3, "ainfinity list"),
]


@pytest.fixture
def files(home: Any) -> None:
    (home.work / "empty.jsonl").touch()
    (home.work / "broken.jsonl").write_text('{"messages": [{"role": "user", "content": "x"}]}\n{"messages"\n')
    (home.work / "bad.yaml").write_text("name: x\nrecipe:\n  lrr: 1\n")


@pytest.mark.usefixtures("files", "with_database")
@pytest.mark.parametrize(
    ("arguments", "code", "message"), USAGE, ids=[" ".join(row[0])[:50] or "none" for row in USAGE]
)
def test_mistakes(cli: Any, arguments: list[str], code: int, message: str) -> None:
    result = cli(*arguments)
    assert result.code == code, result.err
    assert message in result.err
    assert "Traceback" not in result.err
    assert result.out == ""
    assert CANARY not in result.err


def test_a_secret_without_a_known_look_is_refused_too(cli: Any, home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_TOKEN", "canary-from-environment")
    cli("secrets", "set", "NAME", stdin="canary-from-the-store")
    monkeypatch.setattr("ainfinity.core.redact._known", set())  # as in a process that has not seen it
    monkeypatch.setattr("ainfinity.core.redact._known_pattern", None)
    for value in ("canary-from-environment", "canary-from-the-store"):
        result = cli("launch", "demo.yaml", f"note=see {value}")
        assert result.code == 2
        assert "known secret" in result.err
        assert value not in result.err
    assert cli("launch", "demo.yaml", "note=see canary-from-nowhere", "--dry-run").code == 0
    assert not list(home.settings.data_dir.glob("crash/*"))


def test_errors_as_json(cli: Any) -> None:
    error = cli("show", "nope", "--json").error()
    assert error["code"] == "not_found"
    assert error["hint"]


@pytest.mark.parametrize("kind", sorted(vars(exceptions)), ids=str)
def test_every_exception_has_its_exit_code(cli: Any, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The one mapping: whatever is raised anywhere in a command comes out as its class says."""
    found = getattr(exceptions, kind)
    if not (isinstance(found, type) and issubclass(found, AinfinityError)):
        return

    def fail(arguments: list[str]) -> int:
        raise found("what", hint="then")

    monkeypatch.setattr(main_module, "_invoke", fail)
    result = cli("list")
    assert result.code == found.exit_code
    assert result.err == "Error: what\nthen\n"


def test_a_fault_of_ours_is_one_line_and_a_redacted_file(cli: Any, home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: list[str]) -> int:
        raise RuntimeError(f"broken with {CANARY}")

    monkeypatch.setattr(main_module, "_invoke", fail)
    result = cli("list")
    assert result.code == 1
    assert len(result.err.splitlines()) == 2
    assert "Traceback" not in result.err
    (file,) = (home.settings.data_dir / "crash").iterdir()
    assert str(file) in result.err
    text = file.read_text()
    assert "Traceback" in text
    assert CANARY not in text + result.err
    monkeypatch.setenv("AINFINITY_LOG_LEVEL", "DEBUG")
    assert "Traceback" in cli("list").err


def test_settings_that_are_wrong(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AINFINITY_LEASE", "soon")
    assert cli("list").code == 2
    monkeypatch.delenv("AINFINITY_LEASE")
    monkeypatch.setenv("AINFINITY_LOG_LEVEL", "loud")
    assert "AINFINITY_LOG_LEVEL" in cli("show", "x").err
    monkeypatch.delenv("AINFINITY_LOG_LEVEL")
    monkeypatch.setenv("AINFINITY_SERVER", "https://host")
    assert cli("list").code == 3


def test_folders_that_cannot_be_made(cli: Any, home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (home.path / "file").touch()
    monkeypatch.setenv("AINFINITY_DATA_DIR", str(home.path / "file" / "data"))
    result = cli("launch", "demo.yaml")
    assert result.code == 4
    assert "AINFINITY_DATA_DIR" in result.err


def test_a_reader_that_goes_away_is_no_error(home: Any, seed: Any) -> None:
    row = seed.over("succeeded", "alpha")
    seed.log(row, "x" * 200 + "\n" + "line\n" * 200_000)
    process = home.start("logs", "alpha")
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(60) == 0
    assert process.stdin is not None
    process.stdin.close()
    process.stderr.close()


def test_ctrl_c_at_any_moment(home: Any, seed: Any) -> None:
    """From the first import of ours to the wait itself. What comes before our code runs is Python's to answer."""
    seed.running("alpha")
    for seconds in (0.1, 0.3, 0.6, 1.5):
        process = home.start("wait", "alpha")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert ", in main\n" not in err
        if process.returncode != -signal.SIGINT and "Traceback" not in err:
            assert process.returncode == 130
            assert "Interrupted" in err or "the job goes on" in err
    assert process.returncode == 130


def test_output_in_an_encoding_that_lacks_a_character(home: Any, seed: Any) -> None:
    seed.job("alpha", "note: naïve → ok\n")
    result = home.process("show", "alpha", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert result.code == 0
    assert "\\u2192" in result.out


def test_version_and_help(cli: Any) -> None:
    assert re.fullmatch(r"ainfinity \d+\.\d+.*\n", cli("--version").out)
    text = cli("--help").out
    for name in ("new", "launch", "list", "show", "logs", "metrics", "events", "cancel", "retry", "wait", "doctor"):
        assert re.search(rf"^  {name} ", text, re.M)
    assert cli("launch", "-h").code == 0


words = st.sampled_from(
    ["list", "show", "events", "--json", "--csv", "-n", "x", "--state", "recipes", "secrets", "=", "-"]
)


@given(st.lists(st.one_of(words, st.text(st.characters(exclude_categories=["Cs"]), max_size=8)), max_size=4))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_command_line_ends_in_a_fault(tmp_path_factory: pytest.TempPathFactory, arguments: list[str]) -> None:
    folder = tmp_path_factory.getbasetemp() / "usage"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AINFINITY_DATA_DIR", str(folder / "data"))
        patch.setenv("AINFINITY_CONFIG_DIR", str(folder / "config"))
        patch.setenv("AINFINITY_SERVER", "https://nobody")  # nothing is made, started or asked
        if not {"doctor", "worker"} & set(arguments):
            assert run(arguments) in (0, 2, 3, 4, 102)
    assert not (folder / "data" / "crash").exists()


def test_a_users_own_folders_do_not_shadow_ours(home: Any) -> None:
    for name in ("training", "tui", "recipes", "ainfinity"):
        (home.work / name).mkdir()
        (home.work / name / "__init__.py").write_text("raise SystemExit('shadowed')\n")
    command = Path(os.path.dirname(os.path.abspath(__import__("sys").executable))) / "ainfinity"
    if not command.exists():
        pytest.skip("no installed command")
    done = subprocess.run(
        [command, "launch", "demo.yaml", "--dry-run", "--json"],
        env=home.environment,
        cwd=home.work,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr

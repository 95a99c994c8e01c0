"""What the command line loads before it does anything: a key press in a shell must not wait for a framework."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: pydantic is not among them: Typer itself reads options and arguments with it.
HEAVY = {"torch", "sky", "textual", "sqlmodel", "sqlalchemy", "alembic", "pydantic_settings", "slack_bolt", "fastapi"}
SHOW = """
import sys
sys.argv[0] = "ainfinity"
from ainfinity.cli.main import main
try:
    main()
except SystemExit:
    pass
print("LOADED", *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def loaded(home: Path, *argv: str, **environment: str) -> tuple[set[str], str]:
    """Run a command and return the top-level modules it loaded, and its output."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AINFINITY_")}
    env |= {"AINFINITY_DATA_DIR": str(home / "data"), "AINFINITY_CONFIG_DIR": str(home / "config"), **environment}
    command = [sys.executable, "-c", SHOW, *argv]
    done = subprocess.run(command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    marks = [line for line in done.stderr.splitlines() if line.startswith("LOADED")]
    assert marks, done.stderr
    return set(marks[0].split()[1:]), done.stdout


def test_help_is_light(tmp_path: Path) -> None:
    modules, output = loaded(tmp_path, "--help")
    assert "launch" in output
    assert modules & (HEAVY | {"pydantic"}) == set()


@pytest.mark.parametrize("words", ["ainfinity ", "ainfinity show ", "ainfinity launch --"])
def test_completion_is_light(tmp_path: Path, words: str) -> None:
    complete = {"_AINFINITY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    modules, _ = loaded(tmp_path, **complete)
    assert modules & HEAVY == set()


def test_completion_completes(tmp_path: Path) -> None:
    complete = {"_AINFINITY_COMPLETE": "complete_bash", "COMP_WORDS": "ainfinity la", "COMP_CWORD": "1"}
    _, output = loaded(tmp_path, **complete)
    assert output.split() == ["launch"]


def test_list_is_light(tmp_path: Path) -> None:
    loaded(tmp_path, "list", "--json")  # the first command of all makes the database
    modules, _ = loaded(tmp_path, "list", "--json")
    assert modules & HEAVY == set()


def test_control_heavy_modules_are_seen(tmp_path: Path) -> None:
    modules, _ = loaded(tmp_path, "events")
    assert "sqlmodel" in modules

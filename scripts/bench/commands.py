"""CPU time of short commands against `--help` of a two-command Typer app."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

from scripts.bench.measure import Figure, at_most, by_turns, cpu_of
from scripts.bench.seed import make_store

_CONTROL = '''
"""A stock Typer app of two commands."""
import typer

app = typer.Typer()


@app.command()
def hello(name: str, count: int = typer.Option(1, help="How often.")) -> None:
    """Greet somebody."""
    for _ in range(count):
        print("hello", name)


@app.command()
def bye(name: str, loud: bool = typer.Option(False, help="Shout.")) -> None:
    """Take leave."""
    print("BYE" if loud else "bye", name)
'''
#: The same few lines that pip writes for an installed command.
_ENTRY = "import sys\nfrom {module} import {function}\nif __name__ == '__main__':\n    sys.exit({function}())\n"


def measure(folder: Path, rounds: int = 15, jobs: int = 10_000) -> list[Figure]:
    """Medians over `rounds` processes each."""
    data = folder / "commands"
    make_store(data / "ainfinity.db", jobs).close()
    (folder / "two_commands.py").write_text(_CONTROL)
    control = folder / "control"
    control.write_text(_ENTRY.format(module="two_commands", function="app"))
    ours = folder / "ours"
    ours.write_text(_ENTRY.format(module="ainfinity.cli.main", function="main"))
    env = environment(data, folder)
    complete = env | {
        "_AINFINITY_COMPLETE": "complete_bash",
        "COMP_WORDS": "ainfinity show tune-0999",
        "COMP_CWORD": "2",
    }

    def run(script: Path, *argv: str, env: dict[str, str] = env) -> float:
        return cpu_of([sys.executable, str(script), *argv], env)

    control_cpu, help_cpu, list_cpu, completion_cpu = by_turns(
        rounds,
        partial(run, control, "--help"),
        partial(run, ours, "--help"),
        partial(run, ours, "list"),
        partial(run, ours, env=complete),
    )
    return [
        at_most("ainfinity --help", help_cpu, "CPU ms", 1.15, control_cpu),
        at_most(f"ainfinity list, {jobs} jobs", list_cpu, "CPU ms", 2, control_cpu),
        at_most(f"completion of a name, {jobs} jobs", completion_cpu, "CPU ms", 2, control_cpu),
    ]


def environment(data: Path, python_path: Path) -> dict[str, str]:
    """The environment of a measured process: this one's, without settings of ours, with stores of its own."""
    # Compiled modules are written, as where people work: compiling ours anew each time is nobody's start.
    dropped = ("AINFINITY_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return kept | {
        "AINFINITY_DATA_DIR": str(data),
        "AINFINITY_CONFIG_DIR": str(data / "config"),
        "PYTHONPATH": str(python_path),
        "TERM": "xterm-256color",
    }

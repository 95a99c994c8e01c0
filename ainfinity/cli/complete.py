"""Completion in the shell: the scripts, and the words that fit. No word is worth an error: none is offered instead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from ainfinity.core.exceptions import AinfinityError, UsageError

_SHELLS = ("bash", "zsh", "fish")
_MOST = 50


def complete_jobs(incomplete: str) -> list[str]:
    """Return names of jobs, newest first, that begin with what is typed."""
    from ainfinity.core.config import load_settings

    try:
        path = load_settings().sqlite_path
        if path is None or not path.exists():
            return []
        from ainfinity.store.peek import peek_names

        return list(peek_names(path, incomplete, _MOST))
    except AinfinityError:
        return []


def complete_launch(incomplete: str) -> list[str]:
    """Return ready recipes and job files that begin with what is typed."""
    import glob

    files = [path for path in glob.glob(f"{glob.escape(incomplete)}*") if path.endswith((".yaml", ".yml", ".json"))]
    return [*complete_recipes(incomplete), *sorted(files)]


def complete_recipes(incomplete: str) -> list[str]:
    """Return ready recipes that begin with what is typed."""
    from importlib import resources

    try:
        entries = list(resources.files("recipes").iterdir())
    except (ModuleNotFoundError, OSError):
        return []
    return _fitting((entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml")), incomplete)


def complete_states(incomplete: str) -> list[str]:
    """Return states that begin with what is typed."""
    from ainfinity.schema.states import JobState

    return _fitting(["live", *JobState], incomplete)


def complete_secrets(incomplete: str) -> list[str]:
    """Return names of stored secrets that begin with what is typed."""
    from ainfinity.core.config import load_settings
    from ainfinity.core.secrets import SecretStore

    try:
        return _fitting(SecretStore(load_settings().config_dir).names(), incomplete)
    except AinfinityError:
        return []


def complete_datasets(incomplete: str) -> list[str]:
    """Return names of data sets that begin with what is typed."""
    return _names_in("dataset", incomplete)


def complete_orphans(incomplete: str) -> list[str]:
    """Return names of orphans that begin with what is typed."""
    return _names_in("orphan", incomplete)


def _names_in(table: Literal["dataset", "orphan"], incomplete: str) -> list[str]:
    from ainfinity.core.config import load_settings

    try:
        path = load_settings().sqlite_path
        if path is None or not path.exists():
            return []
        from ainfinity.store.peek import peek_table_names

        return peek_table_names(path, table, incomplete, _MOST)
    except AinfinityError:
        return []


def _fitting(words: Iterable[str], incomplete: str) -> list[str]:
    return sorted(word for word in words if word.startswith(incomplete))


def write_script(shell: str) -> int:
    """Write the completion script of a shell. Errors: UsageError."""
    import os

    from ainfinity.cli.main import COMPLETE_VARIABLE, run
    from ainfinity.cli.output import interactive, say

    if shell not in _SHELLS:
        raise UsageError(f"There is no completion for {shell!r}.", hint=f"Known shells: {', '.join(_SHELLS)}.")
    os.environ[COMPLETE_VARIABLE] = f"source_{shell}"  # the request by which Typer writes its script
    try:
        code = run([])
    finally:
        del os.environ[COMPLETE_VARIABLE]
    if interactive():
        place = {
            "bash": 'add this line to ~/.bashrc: eval "$(ainfinity completion bash)"',
            "zsh": 'add this line to ~/.zshrc, after compinit: eval "$(ainfinity completion zsh)"',
            "fish": "run: ainfinity completion fish > ~/.config/fish/completions/ainfinity.fish",
        }[shell]
        say(f"To have it in every shell, {place}")
    return code

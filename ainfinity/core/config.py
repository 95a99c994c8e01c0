"""Typed settings, read from `AINFINITY_*` once per process.

A frozen dataclass and not pydantic-settings: that import alone costs more CPU than the whole of `ainfinity list` may.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from ainfinity.core.constants import APP_NAME
from ainfinity.core.exceptions import UsageError


def _default_folder(kind: str) -> Path:
    import platformdirs

    call = platformdirs.user_data_path if kind == "data" else platformdirs.user_config_path
    return call(APP_NAME)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings. Times are seconds."""

    data_dir: Path
    config_dir: Path
    database_url: str = ""
    server: str = ""
    token: str = field(default="", repr=False)
    log_level: str = "INFO"
    #: How many jobs the local backend runs at once; 0 means one a GPU, or one where there is none.
    local_slots: int = 0
    lease: float = 10.0
    renew: float = 3.0
    tick: float = 1.0
    #: How long a backend elsewhere is left alone between two looks while nothing comes or goes there.
    poll: float = 5.0
    #: How long an intended launch must be absent from the backend before that is believed.
    grace: float = 10.0
    #: How long a stopping attempt gets from SIGTERM to SIGKILL.
    stop_grace: float = 35.0
    #: How long a machine that no job owns waits for an answer about it before it is removed.
    orphan_after: float = 86400.0
    #: How long after its launch an attempt elsewhere ends itself if neither its policy nor its plan sets a limit.
    default_deadline: float = 86400.0
    #: How long a machine elsewhere lives on by itself when nothing runs on it any more and no worker ends it; 0 means
    #: ten minutes, or an hour where the model is on its own disk.
    idle_down: float = 0.0
    #: How long a machine is kept whose model cannot be brought home.
    keep_unfetched: float = 86400.0
    busy_timeout: float = 10.0
    #: A command that gets each notice as JSON on its standard input; empty means none.
    notify_command: str = ""

    @property
    def database(self) -> str:
        """The database URL: the one set, or the SQLite file in the data folder."""
        return self.database_url or f"sqlite:///{self.data_dir / 'ainfinity.db'}"

    @property
    def sqlite_path(self) -> Path | None:
        """The SQLite file behind `database`, or None for another kind of database."""
        prefix = "sqlite:///"
        return Path(self.database.removeprefix(prefix)) if self.database.startswith(prefix) else None

    @property
    def attempts_dir(self) -> Path:
        """Where the local backend keeps a folder per attempt."""
        return self.data_dir / "attempts"

    @property
    def jobs_dir(self) -> Path:
        """Where outputs and checkpoints of jobs lie, a folder per job."""
        return self.data_dir / "jobs"

    @property
    def cache_dir(self) -> Path:
        """Things that can be made again: converted models, built extensions."""
        return self.data_dir / "cache"


def _convert(name: str, kind: Any, text: str) -> Any:
    try:
        if kind is Path:
            return Path(text).expanduser().absolute()
        return kind(text)
    except ValueError:
        variable = f"AINFINITY_{name.upper()}"
        raise UsageError(
            f"{variable} must be {'a whole number' if kind is int else 'a number'}, not {text!r}.",
            hint=f"Set {variable} right or unset it.",
            field=variable,
        ) from None


def load_settings(environment: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Read the settings from `environment` (the process's own by default); `overrides` win.

    Errors:
        UsageError: a number is not one.
    """
    environment = os.environ if environment is None else environment
    kinds = get_type_hints(Settings)
    found: dict[str, Any] = {}
    for setting in fields(Settings):
        text = environment.get(f"AINFINITY_{setting.name.upper()}", "")
        if text:
            found[setting.name] = _convert(setting.name, kinds[setting.name], text)
    found.update(overrides)
    for name in ("data_dir", "config_dir"):
        if name not in found:
            found[name] = _default_folder(name.removesuffix("_dir"))
    return Settings(**found)

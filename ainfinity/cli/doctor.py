"""`ainfinity doctor`: is everything here that a job needs, and if not, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ainfinity.cli.output import colour, harmless, say, write, write_json
from ainfinity.core.config import Settings, load_settings
from ainfinity.core.constants import EXIT_OK, EXIT_OTHER

_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `hint` is the next step; `fixed` tells that --fix has just taken it."""

    name: str
    status: Literal["ok", "warning", "failed"]
    message: str
    hint: str = ""
    fixed: bool = False


def run_doctor(*, fix: bool, as_json: bool) -> int:
    """Check everything; exit code 1 if something that jobs need failed."""
    settings = load_settings()
    found: list[Check] = []
    for check in all_checks(settings, fix=fix):
        found.append(check)
        if not as_json:
            _write(check)
    ok = all(check.status != "failed" for check in found)
    if as_json:
        write_json({"ok": ok, "checks": found})
    elif ok:
        say("All that jobs need is here.")
    else:
        say("Something that jobs need is missing; the next steps stand above.")
    return EXIT_OK if ok else EXIT_OTHER


def _write(check: Check) -> None:
    status = colour(f"{check.status:<8}", _COLOURS[check.status])
    write(f"{status} {check.name:<10} {harmless(check.message)}{' (fixed)' if check.fixed else ''}")
    if check.hint and check.status != "ok":
        write(f"{'':<19} → {harmless(check.hint)}")


def all_checks(settings: Settings, *, fix: bool) -> Iterator[Check]:
    """Yield every check; with `fix`, put right what is safe to put right on the way."""
    from ainfinity.cli import doctor_machine as machine
    from ainfinity.cli import doctor_store as store

    yield machine.system()
    yield machine.python()
    yield machine.packages()
    yield machine.compiler(settings)
    yield machine.build_lock(settings, fix=fix)
    yield machine.gpus()
    yield from store.folders(settings, fix=fix)
    yield machine.disk(settings)
    yield machine.memory()
    yield machine.shared_memory()
    yield store.secrets(settings, fix=fix)
    yield store.database(settings, fix=fix)
    yield store.worker(settings, fix=fix)
    yield store.doorbells(settings, fix=fix)
    yield machine.sky(settings)

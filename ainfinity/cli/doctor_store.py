"""Checks of what ainfinity keeps: folders, secrets, database, worker, doorbells."""

from __future__ import annotations

import os
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ainfinity.cli.doctor import Check
from ainfinity.core.config import Settings
from ainfinity.core.exceptions import AinfinityError, DatabaseOlder

#: Seconds to wait for a writer, who usually needs milliseconds.
_PATIENCE: Final = 2.0


def folders(settings: Settings, *, fix: bool) -> Iterator[Check]:
    """Whether the folders can be written."""
    for name, folder in (("data", settings.data_dir), ("config", settings.config_dir)):
        variable = f"AINFINITY_{name.upper()}_DIR"
        hint = f"Set {variable} to a folder of yours, or make this one writable."
        made = False
        try:
            if not folder.exists() and fix:
                folder.mkdir(mode=0o700, parents=True)
                made = True
            if not folder.exists():
                nearest = next(parent for parent in folder.parents if parent.exists())
                if not nearest.is_dir() or not os.access(nearest, os.W_OK):
                    yield Check(name, "failed", f"{folder} cannot be made", hint)
                else:
                    yield Check(name, "ok", f"{folder} (made when needed)")
                continue
            probe = folder / f".probe-{uuid.uuid4().hex}"
            probe.write_bytes(b"x")
            probe.unlink()
        except OSError as error:
            yield Check(name, "failed", f"{folder} cannot be written: {error.strerror}", hint)
        else:
            yield Check(name, "ok", str(folder), fixed=made)


def secrets(settings: Settings, *, fix: bool) -> Check:
    """Whether only the owner can read the file of secrets."""
    from ainfinity.core.secrets import open_secrets

    store = open_secrets(settings)
    try:
        count = len(store.names())
        mode = stat.S_IMODE(store.path.stat().st_mode) if store.path.exists() else 0o600
    except AinfinityError as error:
        return Check("secrets", "failed", error.message, error.hint)
    if mode & 0o077:
        if not fix:
            return Check("secrets", "failed", f"others can read {store.path}", "ainfinity doctor --fix")
        store.path.chmod(0o600)
        return Check("secrets", "ok", f"{store.path} is yours alone again", fixed=True)
    return Check("secrets", "ok", f"{count} stored; new ones go to {store.place}")


def database(settings: Settings, *, fix: bool) -> Check:
    """Whether the database is of this version, and sound."""
    path = settings.sqlite_path
    if path is None:
        return Check("database", "ok", "a server's; not checked from here")
    from ainfinity.store.migrate import ensure_schema, look, must_be_current

    try:
        version = look(path)
        if version is None:
            return Check("database", "ok", f"{path} (made when needed)")
        fixed = False
        try:
            must_be_current(version, path)
        except DatabaseOlder as error:
            if not fix:
                return Check("database", "warning", error.message, "ainfinity doctor --fix (makes a backup first)")
            ensure_schema(path)
            fixed = True
        problem = _integrity(path)
        holders = _lock_holders(path)
    except AinfinityError as error:
        return Check("database", "failed", error.message, error.hint)
    if problem:
        hint = f"Restore a backup from {path.parent} (see README, Backup); until then change nothing."
        return Check("database", "failed", f"{path} is damaged: {problem}", hint)
    if holders is not None:
        hint = "Wait for it, or end one of these that hangs."
        return Check("database", "failed", f"{path} is locked; it is open in: {holders or 'no process of yours'}", hint)
    return Check("database", "ok", f"{path}, schema {look(path)}, sound", fixed=fixed)


def _integrity(path: Path) -> str:
    from ainfinity.store.sqlite import reading

    with reading(path) as connection:
        if connection is None:
            return ""
        (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        broken = connection.execute("PRAGMA foreign_key_check").fetchone()
    if answer != "ok":
        return str(answer).splitlines()[0]
    return f"a row of {broken[0]} refers to one that is gone" if broken else ""


def _lock_holders(path: Path) -> str | None:
    """Return None if the database can be written, else which processes have it open."""
    import contextlib
    import sqlite3

    import psutil

    try:
        with contextlib.closing(sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        return None
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            return None  # a folder that cannot be written is another check's matter
    found: list[str] = []
    for process in psutil.process_iter(["pid", "name"]):
        with contextlib.suppress(psutil.Error):
            if any(file.path == str(path.resolve()) for file in process.open_files()):
                found.append(f"{process.name()} (pid {process.pid})")
    return ", ".join(found)


def worker(settings: Settings, *, fix: bool) -> Check:
    """Whether live jobs have someone who carries them out."""
    path = settings.sqlite_path
    if path is None:
        return Check("worker", "ok", "the server's; not checked from here")
    from ainfinity.store.peek import peek_worker

    try:
        status = peek_worker(path, time.time())
    except AinfinityError as error:
        return Check("worker", "warning", f"not checked: {error.message}", error.hint)
    if status.alive:
        return Check("worker", "ok", f"alive: {status.holder}, {status.live_jobs} live jobs")
    if not status.live_jobs:
        return Check("worker", "ok", "none is needed")
    if not fix:
        message = f"{status.live_jobs} jobs are live and no worker is"
        return Check("worker", "failed", message, "ainfinity doctor --fix, or ainfinity worker start")
    from ainfinity.client.local import start_worker

    pid = start_worker(settings)
    return Check("worker", "ok", f"started one, pid {pid}", fixed=True)


def doorbells(settings: Settings, *, fix: bool) -> Check:
    """Sockets that dead processes left; they cost a little time at each change."""
    path = settings.sqlite_path
    if path is None:
        return Check("doorbells", "ok", "not used with a server's database")
    import psutil

    from ainfinity.store.doorbell import bell_folder

    folder = bell_folder(path)
    if not folder.exists():
        return Check("doorbells", "ok", "none")
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        hint = "Remove it if you can; until then changes are seen within a second instead of at once."
        return Check("doorbells", "warning", f"{folder} is not yours alone", hint)
    bells = list(folder.glob("*.sock"))
    dead = [
        bell for bell in bells if not (pid := bell.name.partition("-")[0]).isdigit() or not psutil.pid_exists(int(pid))
    ]
    if dead and fix:
        for bell in dead:
            bell.unlink(missing_ok=True)
        return Check("doorbells", "ok", f"removed {len(dead)} of dead processes", fixed=True)
    if dead:
        return Check("doorbells", "warning", f"{len(dead)} of dead processes in {folder}", "ainfinity doctor --fix")
    return Check("doorbells", "ok", f"{len(bells)} listening")

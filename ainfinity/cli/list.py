"""`ainfinity list`. In embedded mode it reads the database directly, so that ten thousand jobs do not slow it down."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Final

from ainfinity.cli.output import cost_so_far, duration, number, say, write_csv, write_json, write_table
from ainfinity.core.config import Settings, load_settings
from ainfinity.core.constants import EXIT_OK
from ainfinity.core.exceptions import DatabaseOlder, UsageError
from ainfinity.schema.states import JOB_LIVE, JobState
from ainfinity.schema.views import JobQuery, JobRow

_HEAD: Final = ("NAME", "STATE", "STEP", "LOSS", "ETA", "AGE", "COST", "WHERE", "MODEL", "ID")
_CSV: Final = (
    *("id", "name", "state", "owner", "model", "infra", "gpus", "priority", "attempt", "tags", "submitted_at"),
    *("started_at", "finished_at", "error_code", "step", "total_steps", "loss", "eta_seconds"),
    *("cost", "price_per_hour", "kept_until", "stale_since"),
)


def list_jobs(
    text: str, limit: int | None, states: Sequence[str], tags: Sequence[str], owner: str, *, as_json: bool, as_csv: bool
) -> int:
    """Write the jobs that fit."""
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other.", hint="Give one of them.")
    query = JobQuery(states=_states(states), tags=tuple(tags), owner=owner, text=text, limit=limit)
    settings = load_settings()
    rows = read_rows(settings, query)
    if as_json:
        write_json(rows)
    elif as_csv:
        write_csv(_CSV, (_csv_row(row) for row in rows))
    elif rows:
        now = time.time()
        _write_table([_table_row(row, now) for row in rows], costs=any(row.infra != "local" for row in rows))
        if limit is not None and len(rows) == limit:
            say(f"The newest {limit}; --all lists every one.")
    else:
        filtered = text or states or tags or owner
        say(
            "No job fits."
            if filtered
            else "No jobs yet. `ainfinity launch FILE` starts one; `ainfinity recipes` lists ideas."
        )
    if any(row.state in JOB_LIVE for row in rows):
        sys.stdout.flush()
        _ensure_worker(settings)
    return EXIT_OK


def _write_table(cells: Sequence[tuple[str, ...]], *, costs: bool) -> None:
    """Write the table, without the costs where no job has any."""
    kept = [index for index, name in enumerate(_HEAD) if costs or name != "COST"]
    head, *rows = [[row[index] for index in kept] for row in (_HEAD, *cells)]
    write_table(head, rows, right=range(2, 7 if costs else 6), state=1)


def _ensure_worker(settings: Settings) -> None:
    """Start a worker if live jobs have none. The usual case, a living one, costs one query."""
    path = settings.sqlite_path
    if settings.server or path is None:
        return
    from ainfinity.store.peek import peek_worker

    status = peek_worker(path, time.time())
    if status.live_jobs and not status.alive:
        from ainfinity.cli.session import with_client

        with_client(lambda client: client.ensure_worker())


def read_rows(settings: Settings, query: JobQuery) -> Sequence[JobRow]:
    """Return the jobs that fit, by the shortest way there is."""
    path = settings.sqlite_path
    if not settings.server and path is not None:
        if not path.exists():
            return []
        from ainfinity.store.peek import peek_jobs

        try:
            return peek_jobs(path, query)
        except DatabaseOlder:
            pass  # the client migrates it
    from ainfinity.cli.session import with_client

    return with_client(lambda client: client.list_jobs(query))


def _states(wanted: Sequence[str]) -> tuple[str, ...]:
    known = [str(state) for state in JobState]
    found: list[str] = []
    for word in (part.strip() for text in wanted for part in text.split(",")):
        if word == "live":
            found.extend(sorted(JOB_LIVE))
        elif word in known:
            found.append(word)
        else:
            import difflib

            guess = difflib.get_close_matches(word, known, n=1)
            hint = f"Did you mean {guess[0]}?" if guess else f"States: live, {', '.join(known)}."
            raise UsageError(f"There is no state {word!r}.", hint=hint)
    return tuple(dict.fromkeys(found))


def state_text(row: JobRow) -> str:
    """Return a job's state, marked where contact was lost, nothing moves, or an ended attempt's machine is kept."""
    marks = [row.state]
    if row.stale_since is not None:
        marks.append("?")
    if row.stuck_since is not None:
        marks.append("stuck")
    if row.kept_until is not None:
        marks.append("kept")
    return " ".join(marks)


def _table_row(row: JobRow, now: float) -> tuple[str, ...]:
    progress = row.progress
    steps = f"{progress.step}/{progress.total_steps}" if progress.total_steps else "-"
    live = row.state in JOB_LIVE
    return (
        row.name,
        state_text(row),
        steps,
        number(progress.loss),
        duration(progress.eta_seconds) if live else "-",
        duration(now - row.submitted_at),
        cost_so_far(row.cost, row.price_per_hour),
        f"{row.infra} {row.gpus}".strip(),
        row.model.rstrip("/").rpartition("/")[2],
        row.id,
    )


def _csv_row(row: JobRow) -> list[object]:
    progress = row.progress
    late = {
        "tags": " ".join(row.tags),
        "step": progress.step,
        "total_steps": progress.total_steps,
        "loss": progress.loss,
        "eta_seconds": progress.eta_seconds,
    }
    return [late[name] if name in late else getattr(row, name) for name in _CSV]

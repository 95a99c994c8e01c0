"""The columns of the jobs table: which fit, how wide they are, and what a job's row says in them. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from ainfinity.schema.states import JobState
from ainfinity.schema.views import JobRow
from tui import format as fmt
from tui.looks import LABEL_WIDTH, is_live, row_look
from tui.text import Line, clean, fit


class Column(NamedTuple):
    """A column and its width in cells."""

    name: str
    width: int


_TITLES: Final = {
    "symbol": "",
    "state": "STATE",
    "name": "NAME",
    "model": "MODEL",
    "owner": "OWNER",
    "bar": "PROGRESS",
    "percent": "",
    "eta": "ETA",
    "loss": "LOSS",
    "cost": "COST",
    "age": "AGE",
}
_RIGHT: Final = frozenset({"percent", "eta", "loss", "cost", "age"})
#: In order of importance: a narrow screen loses the last ones first.
_WANTED: Final = (
    ("symbol", 1),
    ("name", 16),
    ("percent", 4),
    ("loss", 7),
    ("state", LABEL_WIDTH),
    ("eta", 6),
    ("age", 4),
    ("bar", 8),
    ("model", 12),
    ("owner", 8),
)
#: How wide the columns that may grow get at most, in the order in which they grow.
_GROWING: Final = (("name", 18), ("model", 14), ("name", 32), ("model", 26), ("bar", 16), ("owner", 16), ("name", 64))
_WIDE: Final = 100


def layout(cells: int, *, owners: bool, costs: bool = False) -> list[Column]:
    """Choose the columns for so many cells.

    `owners`: whether who owns a job tells one from another; `costs`: whether any job costs, or may cost, money.
    """
    wanted = [entry for entry in _WANTED if entry[0] != "owner"]
    if owners:
        wanted[7:] = [("owner", 8), ("model", 12), ("bar", 8)]
    elif cells >= _WIDE:
        wanted.append(("owner", 8))
    if costs:
        wanted.insert(5, ("cost", 9))
    widths: dict[str, int] = {}
    left = cells + 1  # one blank goes before each column but the first
    for name, least in wanted:
        if left > least:
            widths[name] = least
            left -= least + 1
    for name, most in _GROWING:
        if name in widths:
            more = min(max(0, most - widths[name]), left)
            widths[name] += more
            left -= more
    return [Column(name, widths[name]) for name in _TITLES if name in widths]


def header_line(columns: list[Column]) -> Line:
    """Return the table's header."""
    names = [column.name for column in columns]
    line: Line = []
    for column in columns:
        title = _TITLES[column.name]
        if column.name == "percent" and "bar" not in names:
            title = "DONE"
        line.append((fit(title, column.width, right=column.name in _RIGHT) + " ", "dim"))
    return line


def row_line(row: JobRow, columns: list[Column], now: float) -> Line:
    """Return a job's row."""
    line: Line = []
    if row.state == JobState.FAILED and row.error_code:
        columns = _merge_progress(columns)
    for column in columns:
        *before, (text, tone) = _cell(row, column, now)
        # The blank after a cell is drawn with it: half as many runs to style and to send.
        line += [*before, (text + " ", tone)]
    return line


def short_model(model: str) -> str:
    """Return a model's name without the folder or owner before it."""
    return clean(model.rstrip("/").rpartition("/")[2])


def where(row: JobRow) -> str:
    """Return where a job runs, and on what."""
    return " ".join(clean(part) for part in (row.infra, row.gpus) if part)


def remaining(row: JobRow, now: float) -> float | None:
    """Seconds until a running job is done, counted on since the last word of it."""
    progress = row.progress
    if row.state != JobState.RUNNING or row.stale_since is not None or progress.eta_seconds is None:
        return None
    since = 0.0 if progress.updated_at is None else max(0.0, now - progress.updated_at)
    return max(0.0, progress.eta_seconds - since)


def cost_text(row: JobRow) -> str:
    """Return what a job costs: by the hour while it runs, else in all. "" where nothing does."""
    if row.infra == "local" or not row.attempt:
        return ""
    return fmt.price(row.price_per_hour) if is_live(row.state) else fmt.money(row.cost)


def _merge_progress(columns: list[Column]) -> list[Column]:
    """Put the error's code where a job that goes on shows its progress."""
    merged: list[Column] = []
    for column in columns:
        if column.name in ("bar", "percent", "eta"):
            if merged and merged[-1].name == "error":
                merged[-1] = Column("error", merged[-1].width + 1 + column.width)
            else:
                merged.append(Column("error", column.width))
        else:
            merged.append(column)
    return merged


def _cell(row: JobRow, column: Column, now: float) -> Line:
    name, cells = column
    progress = row.progress
    look = row_look(row)
    tone = "text" if is_live(row.state) else "dim"
    part = fmt.fraction(progress.step, progress.total_steps)
    match name:
        case "symbol":
            return [(fit(look.symbol, cells), look.tone)]
        case "state":
            return [(fit(look.label, cells), look.tone)]
        case "name":
            return [(fit(clean(row.name), cells), "bold" if row.state == JobState.RUNNING else tone)]
        case "model":
            return [(fit(short_model(row.model), cells), "dim")]
        case "owner":
            return [(fit(clean(row.owner.partition(":")[2] or row.owner), cells), "dim")]
        case "bar":
            if not progress.total_steps or not is_live(row.state):
                return [(" " * cells, "text")]
            full, empty = fmt.bar(part, cells)
            return [(full, look.tone), (empty, "track")]
        case "percent":
            return [(fit(fmt.percent(part) if progress.total_steps else "", cells, right=True), tone)]
        case "eta":
            eta = remaining(row, now)
            return [(fit("" if eta is None else fmt.duration(eta), cells, right=True), tone)]
        case "loss":
            return [(fit("" if progress.loss is None else fmt.loss(progress.loss), cells, right=True), tone)]
        case "cost":
            return [(fit(cost_text(row), cells, right=True), tone)]
        case "age":
            return [(fit(fmt.age(now - row.submitted_at), cells, right=True), "dim")]
        case _:
            return [(fit(clean(row.error_code), cells), "bad")]

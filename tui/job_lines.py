"""The words of a job's page: its header and its details, as toned lines. Pure functions of the snapshot."""

from __future__ import annotations

from typing import Any, Final

from ainfinity.schema.states import JobState
from ainfinity.schema.views import AttemptRow, JobRow
from tui import format as fmt
from tui.columns import cost_text, remaining, short_model, where
from tui.looks import is_live, look_of, row_look
from tui.narrate import mapping, text_of
from tui.page import JobPage
from tui.text import Line, clean, crop, line_width, width, wrap, wrap_block

_WAITING: Final[dict[str, str]] = {
    JobState.PLANNING: "Its plan is being made.",
    JobState.AWAITING_APPROVAL: "Waits until a person approves its plan: a approves it.",
    JobState.QUEUED: "Waits for a free place; it starts by itself.",
    JobState.LAUNCHING: "Its machine or process is being started.",
    JobState.RECOVERING: "Its machine was lost; it goes on from its last checkpoint on another.",
    JobState.CANCELLING: "Is being stopped: it saves a checkpoint, then its machine is taken down.",
}
_FAULT_ROWS: Final = 3


def title_line(page: JobPage, cells: int) -> Line:
    """Return the top line: which job, what it trains, where."""
    line: Line = [(" ainfinity ", "key"), (" ‹ ", "dim")]
    row = page.row
    if row is None:
        return line
    line += [(clean(row.name), "bold")]
    for text in (short_model(row.model), where(row), f"attempt {row.attempt}" if row.attempt > 1 else ""):
        if text and line_width(line) + width(text) + 4 <= cells:
            line += [("  · ", "dim"), (text, "dim")]
    return line


def header_lines(page: JobPage, now: float, cells: int, rows: int) -> list[Line]:
    """Return at most `rows` lines: state and progress, then whatever matters most in this state."""
    row = page.row
    if row is None:
        return [[(" Reading the job …", "dim")]]
    lines = [_progress_line(row, now, cells)]
    if (fault := page.fault) is not None:
        text = f"{fault.code}: {fault.message}" if fault.message else fault.code
        lines += _flagged("✗", "bad", text, cells, _FAULT_ROWS)
        lines += _flagged("→", "accent", fault.hint, cells, 2)
    elif row.state == JobState.SUCCEEDED:
        lines += _outcome_lines(page, cells)
    elif row.stuck_since is not None and row.stale_since is None and is_live(row.state):
        since = fmt.duration(now - row.stuck_since)
        lines += _flagged("‖", "warn", f"No step, heartbeat or line for {since}, though its machine answers.", cells, 2)
    elif row.stale_since is not None and is_live(row.state):
        since = fmt.duration(now - row.stale_since)
        text = f"No contact with its machine for {since}. It may well be training; nothing is stopped because of this."
        lines += _flagged("?", "warn", text, cells, 2)
    elif row.state in _WAITING:
        lines += _flagged(" ", "text", _WAITING[row.state], cells, 1)
    if row.kept_until is not None and is_live(row.state):
        left, price = fmt.duration(row.kept_until - now), fmt.price(row.price_per_hour)
        text = f"Ended, and its machine is kept for {left} more, at {price}. ainfinity teardown {row.name} ends it."
        lines[1:1] = _flagged("!", "warn", text, cells, 2)
    return lines[: max(1, rows)]


def _progress_line(row: JobRow, now: float, cells: int) -> Line:
    look = row_look(row)
    progress = row.progress
    line: Line = [(f" {look.symbol} {look.label}", look.tone)]
    if not progress.total_steps:
        return [*line, ("  ", "text"), *_time_taken(row, now)]
    part = fmt.fraction(progress.step, progress.total_steps)
    after: list[Line] = [
        [(f"  {fmt.percent(part)}", "bold")],
        [("  loss ", "dim"), (fmt.loss(progress.loss), "bold")],
    ]
    eta = remaining(row, now)
    if eta is not None:
        after.append([("  ETA ", "dim"), (fmt.duration(eta), "bold")])
    else:
        after.append([("  ", "dim"), *_time_taken(row, now)])
    after.append([("  step ", "dim"), (f"{progress.step:,}/{progress.total_steps:,}", "text")])
    if row.state == JobState.RUNNING and progress.tokens_per_second is not None:
        after.append([("  ", "dim"), (f"{fmt.rate(progress.tokens_per_second)} tok/s", "text")])
    if cost := cost_text(row):
        after.append([("  ", "dim"), (cost, "text")])
    space = cells - line_width(line) - 2
    chosen: Line = []
    for piece in after:
        if line_width(chosen) + line_width(piece) <= space:
            chosen += piece
    room = space - line_width(chosen)
    if room >= 8:
        full, empty = fmt.bar(part, min(room - 1, 60))
        line += [("  ", "text"), (full, look.tone), (empty, "track")]
    return line + chosen


def _time_taken(row: JobRow, now: float) -> Line:
    if row.finished_at is not None:
        begun = row.started_at if row.started_at is not None else row.submitted_at
        took = fmt.duration(row.finished_at - begun)
        return [("took ", "dim"), (took, "text"), (f", {fmt.age(now - row.finished_at)} ago", "dim")]
    if row.started_at is not None:
        return [("for ", "dim"), (fmt.duration(now - row.started_at), "text")]
    return [("since ", "dim"), (fmt.duration(now - row.submitted_at), "text")]


def _flagged(symbol: str, tone: str, text: str, cells: int, rows: int) -> list[Line]:
    """Wrap text beside a symbol into at most `rows` lines."""
    body = wrap_block(text, cells - 4)
    if len(body) > rows:
        body = [*body[: rows - 1], crop(" ".join(body[rows - 1 :]), cells - 4)]
    return [[(f" {symbol if not y else ' '} ", tone), (part, "text")] for y, part in enumerate(body)]


def _outcome_lines(page: JobPage, cells: int) -> list[Line]:
    lines: list[Line] = []
    before, after = page.outcome
    if after is not None:
        line: Line = [(" ◆ ", "accent"), ("held-out loss ", "dim")]
        if before is not None:
            better = after < before
            line += [(f"{fmt.loss(before)} → ", "text"), (fmt.loss(after), "bold")]
            line += [("  ", "text"), (fmt.signed(after - before), "good" if better else "warn")]
        else:
            line += [(fmt.loss(after), "bold")]
        lines.append(line)
    path, size = page.export
    if path:
        shown = f"{path}  ({fmt.size(size)})" if size else path
        lines += _flagged("▣", "good", shown, cells, 2)
    return lines


def detail_lines(page: JobPage, now: float, cells: int) -> list[Line]:
    """Return everything known about the job, for a pane of so many cells."""
    row = page.row
    if row is None:
        return []
    lines: list[Line] = []
    if (fault := page.fault) is not None:
        lines += _section("What went wrong")
        lines += _pairs([("code", fault.code), ("message", fault.message), ("what to do", fault.hint)], cells)
    lines += _samples(page, cells)
    lines += _result(page, cells)
    lines += _section("Job") if lines else [[("Job", "accent")]]
    lines += _pairs(
        [
            ("id", row.id),
            ("owner", row.owner),
            ("where", where(row)),
            ("cost", _cost(row)),
            ("goodput", _goodput(page)),
            ("adopted", row.origin and f"{row.origin}, {'claimed' if row.claimed else 'shown only'}"),
            ("submitted", f"{fmt.age(now - row.submitted_at)} ago"),
            ("priority", str(row.priority) if row.priority else ""),
            ("tags", " ".join(row.tags)),
            ("note", row.note),
        ],
        cells,
    )
    if page.detail is not None:
        lines += _recipe(page.detail.spec, cells)
        lines += _attempts(page.detail.attempts, now, cells)
        lines += _artifacts(page, cells)
    return lines if lines and lines[0] else lines[1:]


def _cost(row: JobRow) -> str:
    if row.infra == "local" or not row.attempt:
        return ""
    if is_live(row.state):
        return f"{fmt.money(row.cost)} when last read, at {fmt.price(row.price_per_hour)}"
    return fmt.money(row.cost)


def _goodput(page: JobPage) -> str:
    goodput = page.detail.goodput if page.detail is not None else None
    return "" if goodput is None else f"{fmt.percent(goodput)} of the paid time"


def _section(title: str) -> list[Line]:
    return [[], [(title, "accent")]]


def _pairs(pairs: list[tuple[str, str]], cells: int) -> list[Line]:
    """Name and value in two columns; values wrap. Empty values are left out."""
    pairs = [(name, value) for name, value in pairs if value]
    margin = min(max((width(name) for name, _ in pairs), default=0) + 2, 22)
    lines: list[Line] = []
    for name, value in pairs:
        for y, part in enumerate(wrap_block(value, max(8, cells - margin - 1))):
            lines.append([(f" {'' if y else crop(clean(name), margin - 2):<{margin - 1}}", "dim"), (part, "text")])
    return lines


def _result(page: JobPage, cells: int) -> list[Line]:
    before, after = page.outcome
    path, size = page.export
    pairs = [("held-out loss", f"{fmt.loss(before)} → {fmt.loss(after)}")] if after is not None else []
    if after is not None and before is not None:
        pairs.append(("change", fmt.signed(after - before)))
    if path:
        pairs.append(("adapter", path))
    if size:
        pairs.append(("size", fmt.size(size)))
    return [*_section("Result"), *_pairs(pairs, cells)] if pairs else []


def _samples(page: JobPage, cells: int) -> list[Line]:
    lines: list[Line] = []
    for sample in page.samples:
        lines += _section("Sample")
        pairs = [("prompt", sample.prompt), ("before", sample.before)]
        lines += _pairs([*pairs, ("after", sample.after or "(not asked yet)")], cells)
    return lines


def _recipe(spec: dict[str, Any], cells: int) -> list[Line]:
    pairs: list[tuple[str, str]] = []
    for part in ("recipe", "resources", "policy"):
        for key, value in mapping(spec.get(part)).items():
            pairs += _flat(key, value)
    return [*_section("Settings"), *_pairs(pairs, cells)] if pairs else []


def _flat(key: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for inner, part in mapping(value).items() for pair in _flat(f"{key}.{inner}", part)]
    if value in (None, [], (), "", False):
        return []
    return [(key, text_of(value))]


def _attempts(attempts: tuple[AttemptRow, ...], now: float, cells: int) -> list[Line]:
    lines: list[Line] = _section("Attempts") if attempts else []
    for attempt in attempts:
        look = look_of(attempt.state)
        since = attempt.started_at if attempt.started_at is not None else attempt.intent_at
        took = fmt.duration(attempt.finished_at - since) if attempt.finished_at is not None else ""
        resumed = f"from step {attempt.resume_step}" if attempt.resume_step else ""
        parts = [clean(attempt.backend), resumed, took, *_machine(attempt, now), clean(attempt.reason)]
        lines.append([(f" {attempt.number} ", "dim"), (f"{clean(attempt.state)}", look.tone)])
        rest = " · ".join(part for part in parts if part)
        lines += [[("   ", "dim"), (row, "dim")] for row in wrap(rest, max(8, cells - 4)) if rest]
    return lines


def _machine(attempt: AttemptRow, now: float) -> list[str]:
    """What an attempt elsewhere was given, what that costs, and until when."""
    if attempt.backend == "local":
        return []
    paid = attempt.paid_from is not None
    live = attempt.finished_at is None
    return [
        clean(attempt.given),
        f"{fmt.money(attempt.cost)}, {fmt.price(attempt.price_per_hour)}" if paid else "",
        f"moved {fmt.plural(attempt.recoveries, 'time')}" if attempt.recoveries else "",
        f"ends in {fmt.duration(attempt.deadline - now)}" if live and attempt.deadline is not None else "",
        f"kept: {clean(attempt.keep_reason)}" if attempt.keep_reason else "",
    ]


def _artifacts(page: JobPage, cells: int) -> list[Line]:
    artifacts = page.detail.artifacts if page.detail else ()
    pairs = [(text_of(each.kind), f"{text_of(each.path)}  ({fmt.size(each.size)})") for each in artifacts]
    return [*_section("Files"), *_pairs(pairs, cells)] if pairs else []

"""A trainer's log line as it is drawn. Pure: made when a line is first looked at, not when it arrives."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from ainfinity.schema.event import Event
from tui import format as fmt
from tui.narrate import mapping, tell
from tui.text import Line, clean

#: Characters kept of a line; a longer one says how much of it is not shown.
LONGEST: Final = 4000
_WARNING_WORDS: Final = ("warning", "warn:")
_ERROR_WORDS: Final = ("error", "traceback", "exception", "fatal", "killed")


class LogLine(NamedTuple):
    """A line as it is kept: its beginning, and how many characters were left out."""

    text: str
    omitted: int = 0


def keep(text: str) -> LogLine:
    """Return what is kept of a line. Of a progress bar that rewrites its line, that is its last state."""
    text = text.rstrip("\r\n")
    text = text[text.rfind("\r") + 1 :]
    return LogLine(text) if len(text) <= LONGEST else LogLine(text[:LONGEST], len(text) - LONGEST)


def log_line(kept: LogLine) -> Line:
    """Return a log line as toned text: the trainer's JSON in words, all else as it is, without what is unprintable."""
    if kept.text.startswith("{") and '"ainfinity"' in kept.text and not kept.omitted:
        line = _protocol(kept.text)
        if line is not None:
            return line
    text = clean(kept.text)
    line = [(text, _tone(text))]
    if kept.omitted:
        line.append((f"  … and {kept.omitted:,} more characters", "warn"))
    return line


def _tone(text: str) -> str:
    lower = text[:200].lower()
    if any(word in lower for word in _ERROR_WORDS):
        return "bad"
    return "warn" if any(word in lower for word in _WARNING_WORDS) else "text"


def _protocol(text: str) -> Line | None:
    try:
        data = mapping(json.loads(text))
    except (ValueError, RecursionError):
        return None
    kind = data.get("kind")
    if not isinstance(kind, str):
        return None
    fields = {key: value for key, value in data.items() if key not in ("ainfinity", "seq", "kind", "at")}
    if kind == "step":
        return _step(fields)
    told = tell(Event(f"trainer.{kind}", "", 0.0, "", data=fields))
    return [(f"{told.symbol} {told.title}", told.tone), (f"  {told.details}" if told.details else "", "text")]


def _step(data: dict[str, Any]) -> Line:
    step, total = fmt.finite(data.get("step")), fmt.finite(data.get("total_steps"))
    of = f"/{total:.0f}" if total is not None else ""
    line: Line = [
        (f"step {fmt.DASH if step is None else format(step, '.0f')}{of}", "live"),
        ("  loss ", "dim"),
        (f"{fmt.loss(data.get('loss')):<7}", "text"),
    ]
    for key, label, write in _NUMBERS:
        if fmt.finite(data.get(key)) is not None:
            line += [(f"  {label} ", "dim"), (write(data[key]), "text")]
    return line


def _rate(value: Any) -> str:
    return f"{fmt.rate(value)} tok/s"


_NUMBERS: Final = (
    ("lr", "lr", fmt.loss),
    ("grad_norm", "grad", fmt.loss),
    ("tokens_per_second", "speed", _rate),
)

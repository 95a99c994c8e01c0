"""A job's events as lines, oldest first. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ainfinity.schema.event import Event
from tui import format as fmt
from tui.narrate import tell
from tui.text import Line, clean, fit

#: How the actors begin that are people; what a worker does needs no name.
_PEOPLE: Final = ("local:", "slack:", "token:")


def event_lines(events: Iterable[Event], submitted_at: float) -> list[Line]:
    """Return one line an event: the time since the job was submitted, what happened, and by whom if by a person."""
    lines: list[Line] = []
    for event in events:
        told = tell(event)
        by = f"by {clean(event.actor)}" if event.actor.startswith(_PEOPLE) else ""
        line: Line = [
            (fit("+" + fmt.duration(event.at - submitted_at), 7, right=True), "dim"),
            (f" {told.symbol} ", told.tone),
            (told.title, told.tone if told.tone != "dim" else "text"),
        ]
        line += [(f"  {part}", "dim") for part in (told.details, by) if part]
        lines.append(line)
    return lines

"""What SkyPilot adds to the lines of a job, and how it is taken off again.

A job's line comes as `(who, pid=7) text`, in colour. Lines without such a prefix are SkyPilot's own, and a few of them
tell where a log begins and how it ended.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_COLOUR: Final = re.compile(r"\x1b(?:\[[0-9;:?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][A-Z0-9]|[=>78cDEHM])")
#: `(setup pid=7)`, `(name, pid=7)`, `(worker1, rank=1, pid=7, ip=10.0.0.2)`. A coloured one may hold any name.
_BODY: Final = r"(?P<name>{name}),? (?:rank=(?P<rank>\d+), )?pid=\d+(?:, ip=(?P<ip>[0-9A-Fa-f.:]+))?"
_COLOURED: Final = re.compile(r"\x1b\[\d+m\(" + _BODY.format(name=r"[^\x1b]*?") + r"\)\x1b\[0m ?")
_PLAIN: Final = re.compile(r"\(" + _BODY.format(name=r"[^()\x1b]*?") + r"\) ?")
_PROTOCOL: Final = '{"ainfinity"'

_BEGIN: Final = re.compile(r"(?:[├└]──|\|--) ?Waiting for task resources on \d+ nodes?\.?")
_END: Final = re.compile(r"(?:\S )?Job finished \(status: (?P<status>[A-Z_]+)\)\.")
_MANAGED_END: Final = re.compile(r"(?:\S )?Managed job finished: \d+ \(status: (?P<status>[A-Z_]+)\)\.")
_ASIDE: Final = re.compile(
    # Also said when only the connection is lost: the same log may follow, or another machine's.
    r"The job cluster is preempted or failed\."
    r"|INFO: Waiting \d+s for the logs to be written\.\.\."
    r"|ERROR: Logs for .*job \d+ \(status: ?[A-Z_]+\) does not exist.*"
)


@dataclass(frozen=True, slots=True)
class Spoken:
    """A line without what SkyPilot added.

    `own`: it is the job's, for it had a prefix. `begins`: a job's log begins here, `end`: the status in which it ended.
    `framing` lines are SkyPilot's own and no part of the log: another reading of it may have other ones.
    """

    text: str
    own: bool = False
    begins: bool = False
    end: str = ""
    framing: bool = False


def strip_prefix(line: str) -> str:
    """Return a job's line without SkyPilot's prefix and colours, and without its end.

    Of several nodes all but the first are named before their text, as in `[1] text`; a line of the trainer's protocol
    comes out exactly as it was written.
    """
    match = _match(line)
    return _without(line, match) if match else _plain_text(line)


def read_line(line: str) -> Spoken:
    """Return what one line of a stream says, its end removed."""
    match = _match(line)
    if match:
        return Spoken(_without(line, match), own=True)
    text = _plain_text(line)
    # Cheap to ask first: a log has millions of lines and a handful of these.
    if "ob" not in text and "Waiting" not in text:
        return Spoken(text)
    if _BEGIN.fullmatch(text):
        return Spoken(text, begins=True)
    if ended := _END.fullmatch(text) or _MANAGED_END.fullmatch(text):
        return Spoken(text, end=ended["status"], framing=True)
    return Spoken(text, framing=_ASIDE.fullmatch(text) is not None)


def _match(line: str) -> re.Match[str] | None:
    if line[:1] == "\x1b":
        return _COLOURED.match(line)
    return _PLAIN.match(line) if line[:1] == "(" else None


def _without(line: str, prefix: re.Match[str]) -> str:
    text = line[prefix.end() :]
    if text.startswith(_PROTOCOL):
        return text.rstrip("\r\n")
    text, rank, ip = _plain_text(text), prefix["rank"], prefix["ip"]
    if rank is not None:
        return f"[{rank}] {text}" if rank != "0" else text
    return f"[{ip}] {text}" if ip else text


def _plain_text(text: str) -> str:
    text = text.rstrip("\r\n")
    return _COLOUR.sub("", text) if "\x1b" in text else text

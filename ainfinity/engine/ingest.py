"""Taking in what trainers say: lines of an attempt's output to events, metrics, progress and artifacts.

Lines carry a rising `seq`, so that taking the same output in twice changes nothing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from ainfinity.core.redact import redact
from ainfinity.schema.actor import ENGINE
from ainfinity.schema.event import Event, EventType
from ainfinity.schema.views import ArtifactRow, Progress
from training.protocol import Line, parse_line

#: Text of a trainer is shown to people and kept; one longer than this is cut.
_MAX_TEXT = 4000
_MAX_ITEMS = 1000
#: A code is a word for programs.
_MAX_CODE = 64
#: What a whole number in a database can be, and the last second of the year 9999, up to which a time can be shown.
_MAX_WHOLE = 2**63 - 1
_MAX_TIME = 253402300799.0

_EVENTS = {
    "started": EventType.TRAINER_STARTED,
    "eval": EventType.TRAINER_EVAL,
    "sample": EventType.TRAINER_SAMPLE,
    "checkpoint": EventType.TRAINER_CHECKPOINT,
    "warning": EventType.TRAINER_WARNING,
    "stopped": EventType.TRAINER_STOPPED,
    "finished": EventType.TRAINER_FINISHED,
    "failed": EventType.TRAINER_FAILED,
}
_METRICS = ("loss", "lr", "grad_norm", "tokens", "tokens_per_second", "step_seconds", "data_seconds", "memory_bytes")


@dataclass(slots=True)
class Intake:
    """What some lines of one attempt amount to."""

    job_id: str
    attempt: int
    line_seq: int
    events: list[Event] = field(default_factory=list[Event])
    points: list[tuple[int, int, float, dict[str, float | None]]] = field(
        default_factory=list[tuple[int, int, float, dict[str, float | None]]]
    )
    artifacts: list[ArtifactRow] = field(default_factory=list[ArtifactRow])
    progress: Progress | None = None


def take_in(job_id: str, attempt: int, line_seq: int, lines: Iterable[str]) -> Intake:
    """Return what new lines say; those whose `seq` is not above `line_seq` were taken in before."""
    intake = Intake(job_id, attempt, line_seq)
    for text in lines:
        line = parse_line(text)
        if line is None or line.seq <= intake.line_seq:
            continue
        intake.line_seq = line.seq
        _take_line(intake, replace(line, at=min(max(line.at, 0.0), _MAX_TIME)))
    return intake


def _take_line(intake: Intake, line: Line) -> None:
    if line.kind == "step":
        _take_step(intake, line)
        return
    kind = _EVENTS.get(line.kind)
    if kind is None:
        return
    data = clean(line.data)
    if isinstance(data.get("code"), str):
        data["code"] = data["code"][:_MAX_CODE]
    intake.events.append(Event(kind, intake.job_id, line.at, ENGINE.name, intake.attempt, data))
    match line.kind:
        case "started":
            total, step = _whole(data.get("total_steps")), _whole(data.get("resumed_step"))
            intake.progress = Progress(step=step, total_steps=total, updated_at=line.at)
        case "checkpoint" if isinstance(data.get("path"), str):
            intake.artifacts.append(_artifact(intake, "checkpoint", data["path"], line.at, _whole(data.get("step"))))
        case "finished":
            intake.artifacts.extend(_exports(intake, line.at, data))
        case _:
            pass


def _take_step(intake: Intake, line: Line) -> None:
    data = line.data
    values = {name: _number(data.get(name)) for name in _METRICS if name in data}
    step, total = _whole(data.get("step")), _whole(data.get("total_steps"))
    intake.points.append((line.seq, step, line.at, values))
    recent = [point[3].get("step_seconds") for point in intake.points[-20:]]
    known = [seconds for seconds in recent if seconds]
    eta = (total - step) * sum(known) / len(known) if known and total >= step else None
    intake.progress = Progress(
        step=step,
        total_steps=total,
        loss=values.get("loss"),
        lr=values.get("lr"),
        tokens_per_second=values.get("tokens_per_second"),
        eta_seconds=_number(eta),
        updated_at=line.at,
    )


def _artifact(intake: Intake, kind: str, path: str, at: float, step: int | None) -> ArtifactRow:
    return ArtifactRow(intake.job_id, intake.attempt, kind, path, 0, "", at, step)


def _exports(intake: Intake, at: float, data: Mapping[str, Any]) -> list[ArtifactRow]:
    """The export's folder first, then its files relative to it."""
    output = data.get("output")
    if not isinstance(output, str):
        return []
    kind = "adapter" if output.rstrip("/").endswith("adapter") else "model"
    files = data.get("files")
    rows = [_artifact(intake, kind, output, at, _whole(data.get("step")))]
    for entry in cast("list[Any]", files) if isinstance(files, list) else []:
        if isinstance(entry, dict):
            file = cast("dict[str, Any]", entry)
            path, digest = str(file.get("path")), str(file.get("sha256"))
            rows.append(ArtifactRow(intake.job_id, intake.attempt, "file", path, _whole(file.get("size")), digest, at))
    return rows


def clean(value: Any) -> Any:
    """Return a trainer's value fit to be stored and shown: redacted, of bounded length, without NaN."""
    match value:
        case str():
            return redact(value)[:_MAX_TEXT]
        case float():
            return value if math.isfinite(value) else None
        case int():
            return value if abs(value) <= _MAX_WHOLE else None
        case dict():
            items = list(cast("dict[Any, Any]", value).items())[:_MAX_ITEMS]
            return {redact(str(key))[:200]: clean(item) for key, item in items}
        case list() | tuple():
            return [clean(item) for item in list(cast("list[Any]", value))[:_MAX_ITEMS]]
        case _:
            return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _MAX_WHOLE:
        return 0  # NaN too, which is not less than anything
    return min(int(value), _MAX_WHOLE)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        return None
    return float(value)

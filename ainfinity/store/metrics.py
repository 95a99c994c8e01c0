"""Metrics of training steps, kept in chunks of columns.

A chunk is one row with one JSON list a metric, which reads a hundred times faster than a row a point. Points arrive a
few at a time, so a new chunk takes in the one before it while that is no larger (as a binary counter carries): a
run of n points then has about log2(n) small chunks at its end, and each point was rewritten about log2(n) times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ainfinity.schema.views import MetricPoint
from ainfinity.store.tables import core

CHUNK = core("metric_chunk")

#: Points above which a chunk is left as it is.
FULL: Final = 1024

#: (seq of the trainer's line, step, Unix seconds, values by name). Non-finite values become None.
Point = tuple[int, int, float, Mapping[str, float | None]]


class _Absent:
    """The mark of a metric that a step did not report, which is not the same as a value that is not finite."""


_ABSENT: Final = _Absent()
_Column = list[float | _Absent | None]


@dataclass(slots=True)
class _Columns:
    step: list[int]
    at: list[float]
    values: dict[str, _Column]


def append_chunk(connection: Connection, job_id: str, attempt: int, points: Sequence[Point]) -> None:
    """Store points of one attempt, in the order of their `seq`, which must be above all stored before."""
    if not points:
        return
    new = _columns(points)
    first_seq = points[0][0]
    older = _to_take_in(connection, job_id, attempt, len(points))
    if older:
        taken = sa.select(CHUNK.c.first_seq, CHUNK.c.columns).where(CHUNK.c.id.in_(older))
        for row in connection.execute(taken.order_by(CHUNK.c.first_seq.desc())):
            first_seq, new = row.first_seq, _join(_decode(row.columns), new)
        connection.execute(CHUNK.delete().where(CHUNK.c.id.in_(older)))
    values = {
        "job_id": job_id,
        "attempt": attempt,
        "first_seq": first_seq,
        "last_step": max(new.step),
        "points": len(new.step),
        "columns": _encode(new),
    }
    connection.execute(CHUNK.insert().values(values))


def read_points(
    connection: Connection,
    job_id: str,
    names: Sequence[str] = (),
    after: tuple[int, int] = (0, -1),
    limit: int | None = None,
) -> list[MetricPoint]:
    """Return the reported steps after (attempt, step), in that order, with all metrics or those named.

    A step that an attempt reported twice, because it went on from a checkpoint, counts as reported last. Steps with
    none of the named metrics are left out. With a `limit` the points are thinned out evenly; the first, the last and
    those with the least and the greatest loss (or first named metric) stay.
    """
    attempt, step = after
    statement = (
        sa.select(CHUNK.c.attempt, CHUNK.c.columns)
        .where(
            CHUNK.c.job_id == job_id,
            sa.or_(CHUNK.c.attempt > attempt, sa.and_(CHUNK.c.attempt == attempt, CHUNK.c.last_step > step)),
        )
        .order_by(CHUNK.c.attempt, CHUNK.c.first_seq)
    )
    places: dict[tuple[int, int], tuple[_Columns, int]] = {}
    for row in connection.execute(statement):
        columns = _decode(row.columns)
        for index, at_step in enumerate(columns.step):
            places[row.attempt, at_step] = (columns, index)
    found = [(*key, *places[key]) for key in sorted(places) if key > after]
    if names:
        found = [place for place in found if any(_has(place[2], place[3], name) for name in names)]
    if limit is not None and len(found) > limit:
        measure = "loss" if not names or "loss" in names else names[0]
        series = [_number(columns, index, measure) for _, _, columns, index in found]
        found = [found[index] for index in thin_out(series, limit)]
    return [_point(attempt, step, columns, index, names) for attempt, step, columns, index in found]


def thin_out(series: Sequence[float | None], limit: int) -> list[int]:
    """Return up to `limit` indices of `series`, evenly spread, with the first, the last, the least and the greatest."""
    count = len(series)
    if count <= limit:
        return list(range(count))
    numbers = [(value, index) for index, value in enumerate(series) if value is not None]
    # The most telling first, for limits that are too small for all four.
    kept = dict.fromkeys([count - 1, 0, *((min(numbers)[1], max(numbers)[1]) if numbers else ())][:limit])
    room = limit - len(kept)
    kept |= dict.fromkeys((index + 1) * (count - 1) // (room + 1) for index in range(room))
    return sorted(kept)


def _to_take_in(connection: Connection, job_id: str, attempt: int, count: int) -> list[int]:
    """Return the ids of the newest chunks that a new one of `count` points takes in."""
    statement = (
        sa.select(CHUNK.c.id, CHUNK.c.points)
        .where(CHUNK.c.job_id == job_id, CHUNK.c.attempt == attempt)
        .order_by(CHUNK.c.first_seq.desc())
        .limit(FULL.bit_length())
    )
    taken: list[int] = []
    for row in connection.execute(statement):
        if row.points > count or row.points + count > FULL:
            break
        taken.append(row.id)
        count += row.points
    return taken


def _columns(points: Sequence[Point]) -> _Columns:
    names = dict.fromkeys(name for _, _, _, values in points for name in values)
    values = {name: [_finite(values.get(name, _ABSENT)) for _, _, _, values in points] for name in names}
    return _Columns([step for _, step, _, _ in points], [at for _, _, at, _ in points], values)


def _finite(value: float | _Absent | None) -> float | _Absent | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _join(old: _Columns, new: _Columns) -> _Columns:
    no_old: _Column = [_ABSENT] * len(old.step)
    no_new: _Column = [_ABSENT] * len(new.step)
    names = dict.fromkeys([*old.values, *new.values])
    values = {name: old.values.get(name, no_old) + new.values.get(name, no_new) for name in names}
    return _Columns(old.step + new.step, old.at + new.at, values)


def _encode(columns: _Columns) -> dict[str, Any]:
    """A metric that every step reported is a list; any other is {"at": indices, "values": …}."""
    encoded: dict[str, Any] = {}
    for name, column in columns.values.items():
        at = [index for index, value in enumerate(column) if value is not _ABSENT]
        encoded[name] = column if len(at) == len(column) else {"at": at, "values": [column[index] for index in at]}
    return {"step": columns.step, "at": columns.at, "values": encoded}


def _decode(stored: dict[str, Any]) -> _Columns:
    values: dict[str, _Column] = {}
    for name, column in stored["values"].items():
        if isinstance(column, dict):
            sparse: dict[str, list[Any]] = column  # pyright: ignore[reportUnknownVariableType]
            values[name] = [_ABSENT] * len(stored["step"])
            for index, value in zip(sparse["at"], sparse["values"], strict=True):
                values[name][index] = value
        else:
            values[name] = column
    return _Columns(stored["step"], stored["at"], values)


def _has(columns: _Columns, index: int, name: str) -> bool:
    return name in columns.values and columns.values[name][index] is not _ABSENT


def _number(columns: _Columns, index: int, name: str) -> float | None:
    value = columns.values[name][index] if name in columns.values else None
    return None if isinstance(value, _Absent) else value


def _point(attempt: int, step: int, columns: _Columns, index: int, names: Sequence[str]) -> MetricPoint:
    shown: dict[str, float | None] = {}
    for name in names or columns.values:
        value = columns.values[name][index] if name in columns.values else _ABSENT
        if not isinstance(value, _Absent):
            shown[name] = value
    return MetricPoint(attempt, step, columns.at[index], shown)

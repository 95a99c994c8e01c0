from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Connection

from ainfinity.schema.views import MetricPoint
from ainfinity.store import metrics
from ainfinity.store.database import Database
from ainfinity.store.metrics import FULL, Point, append_chunk, read_points, thin_out


@pytest.fixture
def written(database: Database, add_job: Callable[..., str]) -> Database:
    with database.write() as connection:
        add_job(connection, "a")
        add_job(connection, "b")
    return database


class Undo(Exception):
    """Ends an example without a trace in the database."""


def run(database: Database, check: Callable[[Connection], None]) -> None:
    def undone() -> None:
        with database.write() as connection:
            check(connection)
            raise Undo

    with pytest.raises(Undo):
        undone()


def points_of(values: Sequence[dict[str, float | None]], first_step: int = 1) -> list[Point]:
    return [(index + 1, first_step + index, float(index), value) for index, value in enumerate(values)]


_VALUES = st.dictionaries(
    st.sampled_from(["loss", "lr", "eval_loss", "step", "at", "values", "ünï"]),
    st.one_of(st.none(), st.floats(), st.integers(-(2**53), 2**53)),
    max_size=4,
)


def finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_VALUES, max_size=40), st.data())
def test_any_chunking_reads_back_the_same(written: Database, values: list[dict[str, Any]], data: st.DataObject) -> None:
    """Also what a step did not report, and what was not finite, which are two things."""
    points = points_of(values)

    def check(connection: Connection) -> None:
        rest = list(points)
        while rest:
            size = data.draw(st.integers(1, len(rest)))
            append_chunk(connection, "a", 1, rest[:size])
            rest = rest[size:]
        assert read_points(connection, "a") == [
            MetricPoint(1, step, at, {name: finite(value) for name, value in given_.items()})
            for _, step, at, given_ in points
        ]
        assert read_points(connection, "b") == []

    run(written, check)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(1, 3), st.lists(_VALUES, min_size=1, max_size=12)), max_size=6),
    st.tuples(st.integers(0, 3), st.integers(-1, 12)),
    st.lists(st.sampled_from(["loss", "lr", "eval_loss", "other"]), max_size=2, unique=True),
)
def test_reading_on_from_a_place_and_by_name(
    written: Database,
    runs: list[tuple[int, list[dict[str, Any]]]],
    after: tuple[int, int],
    names: list[str],
) -> None:
    """Against a plain model: the last report of each (attempt, step) counts, in order."""

    def check(connection: Connection) -> None:
        model: dict[tuple[int, int], MetricPoint] = {}
        seq = 0
        for attempt, values in runs:
            points = [(seq + index + 1, index + 1, float(seq), value) for index, value in enumerate(values)]
            seq += len(points)
            append_chunk(connection, "a", attempt, points)
            for _, step, at, value in points:
                shown = {name: finite(number) for name, number in value.items()}
                model[attempt, step] = MetricPoint(attempt, step, at, shown)
        wanted = [model[key] for key in sorted(model) if key > after]
        if names:
            wanted = [
                MetricPoint(
                    point.attempt, point.step, point.at, {n: point.values[n] for n in names if n in point.values}
                )
                for point in wanted
                if any(name in point.values for name in names)
            ]
        assert read_points(connection, "a", names, after) == wanted

    run(written, check)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False)), max_size=200), st.integers(0, 50))
def test_thinning_out_is_even_and_keeps_the_extremes(series: list[float | None], limit: int) -> None:
    kept = thin_out(series, limit)
    assert kept == sorted(set(kept))
    assert len(kept) <= max(limit, 0)
    if len(series) <= limit:
        assert kept == list(range(len(series)))
        return
    assume(limit > 4)
    assert len(kept) >= limit - 4
    assert kept[0] == 0
    assert kept[-1] == len(series) - 1
    numbers = [value for value in series if value is not None]
    if numbers:
        shown = [series[index] for index in kept if series[index] is not None]
        assert (min(numbers), max(numbers)) == (min(shown), max(shown))
    widest = max(later - earlier for earlier, later in itertools.pairwise(kept))
    assert widest <= math.ceil((len(series) - 1) / (limit - 3))


def test_few_points_keep_the_most_telling() -> None:
    series = [5.0, 9.0, 4.0, 1.0, 4.0, 3.0]
    assert thin_out(series, 0) == []
    assert thin_out(series, 1) == [5]
    assert thin_out(series, 2) == [0, 5]
    assert thin_out(series, 3) == [0, 3, 5]
    assert thin_out(series, 4) == [0, 1, 3, 5]


def test_a_limit_thins_out_what_is_read(written: Database) -> None:
    values = [{"loss": 2.0 + math.sin(index)} for index in range(3000)]
    values[1234]["loss"] = 99.0
    values[777]["loss"] = -1.0

    def check(connection: Connection) -> None:
        append_chunk(connection, "a", 1, points_of(values))
        found = read_points(connection, "a", ("loss",), limit=100)
        assert 96 <= len(found) <= 100
        assert (found[0].step, found[-1].step) == (1, 3000)
        assert {1235, 778} <= {point.step for point in found}
        assert len(read_points(connection, "a", limit=3000)) == 3000

    run(written, check)


def test_points_that_come_one_at_a_time_end_in_few_rows(written: Database) -> None:
    """As many as a binary counter has digits, besides the full ones; and each chunk stays bounded."""
    total = 2 * FULL + 300

    def check(connection: Connection) -> None:
        for point in points_of([{"loss": 1.0}] * total):
            append_chunk(connection, "a", 1, [point])
        sizes = connection.exec_driver_sql("SELECT points FROM metric_chunk ORDER BY first_seq").scalars().all()
        assert sum(sizes) == total
        assert max(sizes) <= FULL
        assert len(sizes) <= 2 * total // FULL + FULL.bit_length()

    run(written, check)


def test_reading_the_end_does_not_read_the_whole(written: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    real = metrics._decode
    monkeypatch.setattr(metrics, "_decode", lambda stored: decoded.append(len(stored["step"])) or real(stored))

    def check(connection: Connection) -> None:
        for start in range(0, 10_000, 1000):
            points = points_of([{"loss": 1.0}] * 1000, first_step=start)
            append_chunk(connection, "a", 1, [(start + seq, step, at, value) for seq, step, at, value in points])
        decoded.clear()
        assert len(read_points(connection, "a", after=(1, 9989))) == 10
        assert sum(decoded) == 1000

    run(written, check)


def test_no_points_are_no_row(written: Database, path: Path) -> None:
    with written.write() as connection:
        append_chunk(connection, "a", 1, [])
        assert connection.exec_driver_sql("SELECT count(*) FROM metric_chunk").scalar_one() == 0

"""The chart stays in its box, shows the smallest and the largest value, and takes as long for a million points."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tui.raster import Window, rasterise
from tui.series import Series
from tui.text import line_width, plain
from tui.widgets.chart import MARK, draw

VALUES = st.floats(-1e308, 1e308, allow_nan=False)
CURVES = st.lists(VALUES, min_size=1, max_size=400)
BLANK = 0x2800


def lit(rows: list[str]) -> set[tuple[int, int]]:
    """Return (column, row) of all dots."""
    bits = {
        0x01: (0, 0),
        0x02: (0, 1),
        0x04: (0, 2),
        0x40: (0, 3),
        0x08: (1, 0),
        0x10: (1, 1),
        0x20: (1, 2),
        0x80: (1, 3),
    }
    found: set[tuple[int, int]] = set()
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            code = 0 if cell == " " else ord(cell) - BLANK
            found |= {(2 * x + dx, 4 * y + dy) for bit, (dx, dy) in bits.items() if code & bit}
    return found


def window_of(series: Series) -> Window:
    return Window(series.xs[0], series.xs[-1], *series.extent())


@given(CURVES, st.integers(1, 60), st.integers(1, 20))
def test_the_curve_stays_in_its_box_and_shows_its_extremes(ys: list[float], columns: int, rows: int) -> None:
    series = Series(enumerate(ys))
    window = window_of(series)
    drawn = rasterise(series, window, columns, rows)
    assert [len(row) for row in drawn] == [columns] * rows
    dots = lit(drawn)
    low, high = min(ys), max(ys)
    for extreme in (low, high):
        assert any(y == window.down(extreme, rows * 4) for _, y in dots)
    # Each column of dots that holds a point shows it, give or take the column at a border.
    for x, y in zip(series.xs, series.ys, strict=True):
        column, row = window.across(x, columns * 2), window.down(y, rows * 4)
        assert {(column + shift, row) for shift in (-1, 0, 1)} & dots


@given(CURVES, st.integers(2, 60), st.integers(1, 12))
def test_the_curve_has_no_gaps(ys: list[float], columns: int, rows: int) -> None:
    series = Series(enumerate(ys))
    dots = lit(rasterise(series, window_of(series), columns, rows))
    across = {x for x, _ in dots}
    assert across == set(range(min(across), max(across) + 1))


@given(st.lists(VALUES, max_size=60), st.lists(VALUES, max_size=4), st.integers(0, 100), st.integers(0, 30))
def test_the_chart_fits_whatever_room_there_is(ys: list[float], marks: list[float], cells: int, rows: int) -> None:
    lines = draw(
        Series(enumerate(ys)), Series((index * 7, y) for index, y in enumerate(marks)), cells, rows, "nothing yet"
    )
    assert len(lines) == (rows if cells else 0)
    assert all(line_width(line) <= cells for line in lines)


def test_largest_and_smallest_value_label_the_axis_and_marks_lie_on_it() -> None:
    lines = [plain(line) for line in draw(Series([(1, 3.25), (2, 1.5), (3, 2.0)]), Series([(1, 3.0)]), 60, 8)]
    assert lines[0].startswith("  3.250┤")
    assert lines[6].startswith("  1.500┤")
    assert sum(line.count(MARK) for line in lines) == 1
    assert lines[7].split() == ["step", "1", "3"]


def test_without_points_it_says_what_is_awaited() -> None:
    assert "first loss" in "".join(
        plain(line) for line in draw(Series(), Series(), 60, 7, "The first loss appears here.")
    )


def test_one_point_and_a_flat_curve_are_drawn() -> None:
    for ys in ([2.5], [2.5] * 500):
        series = Series(enumerate(ys))
        assert lit(rasterise(series, window_of(series), 20, 5))
        assert any("2.500" in plain(line) for line in draw(series, Series(), 40, 6))


@given(st.lists(VALUES, min_size=1, max_size=700), st.data())
def test_extent_is_that_of_all_points_between(ys: list[float], data: st.DataObject) -> None:
    series = Series(enumerate(ys))
    start = data.draw(st.integers(0, len(ys) - 1))
    end = data.draw(st.integers(start + 1, len(ys)))
    assert series.extent(start, end) == (min(ys[start:end]), max(ys[start:end]))


@given(st.lists(st.tuples(st.integers(0, 300), VALUES), max_size=600))
def test_a_resumed_run_replaces_the_steps_it_does_again(points: list[tuple[int, float]]) -> None:
    series = Series(points)
    expected: list[tuple[int, float]] = []
    for step, value in points:
        expected = [point for point in expected if point[0] < step]
        expected.append((step, value))
    assert list(zip(series.xs, series.ys, strict=True)) == expected
    if expected:
        ys = [value for _, value in expected]
        assert series.extent() == (min(ys), max(ys))


def test_what_is_no_number_is_left_out_and_counted() -> None:
    series = Series([(1, 2.0), (2, None), (3, float("nan")), (4, "x"), (5, 1.0)])
    assert (series.xs, series.holes) == ([1, 5], 3)

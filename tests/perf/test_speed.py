"""Gross slowdowns fail the tests; exact figures are `make bench`'s. The bounds here are twice the goals, for noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.bench import appends, commands, feed, tick
from scripts.bench.measure import Figure, at_least, at_most, by_turns, percentile

NOISE = 2.0


def by_name(figures: list[Figure]) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures}


def ratio(figure: Figure) -> float:
    assert figure.ratio is not None
    return figure.ratio


def test_short_commands(tmp_path: Path) -> None:
    found = by_name(commands.measure(tmp_path, rounds=3))
    assert ratio(found["ainfinity --help"]) <= 1.15 * NOISE
    assert ratio(found["ainfinity list, 10000 jobs"]) <= 2 * NOISE
    assert ratio(found["completion of a name, 10000 jobs"]) <= 2 * NOISE


def test_a_tick_over_many_jobs(tmp_path: Path) -> None:
    found = by_name(tick.measure(tmp_path, rounds=3))
    assert found["tick, 10000 live jobs, nothing changed"].value <= 100 * NOISE
    assert found["tick, 10000 live jobs, 100 changed"].value <= 100 * NOISE


def test_calls_a_tick_do_not_grow_with_the_jobs(tmp_path: Path) -> None:
    beds = [tick.Bed(tmp_path / f"{count}.db", count) for count in (100, 1000)]
    calls = [bed.calls_a_tick() for bed in beds]
    assert calls[0] == calls[1]
    assert all(bed.backend.calls["observe_all"] == bed.backend.calls["read_lines"] == 1 for bed in beds)
    for bed in beds:
        bed.store.close()


def test_event_appends(tmp_path: Path) -> None:
    found = by_name(appends.measure(tmp_path, rounds=3, appends=100))
    assert ratio(found["event append, one a transaction"]) >= 3 / NOISE
    assert ratio(found["event append, batches of 100"]) >= 20 / NOISE


def test_an_event_is_seen_in_another_process(tmp_path: Path) -> None:
    found = by_name(feed.measure(tmp_path, commits=60, idle=1.0))
    assert found["commit to event in another process, p50"].value <= 15 * NOISE


@pytest.mark.parametrize(
    ("figure", "ok"),
    [
        (at_most("a", 2.0, "ms", 1.0), False),
        (at_most("a", 1.0, "ms", 1.0), True),
        (at_most("a", 230.0, "ms", 1.15, 200.0), True),
        (at_most("a", 231.0, "ms", 1.15, 200.0), False),
        (at_least("a", 300.0, "x", 3, 100.0), True),
        (at_least("a", 299.0, "x", 3, 100.0), False),
    ],
)
def test_verdicts(figure: Figure, ok: bool) -> None:
    assert figure.ok == ok


def test_medians_and_percentiles() -> None:
    values = iter([999.0, 7.0, 1.0, 2.0])  # the first round only fills caches
    assert by_turns(3, lambda: 4.0, lambda: next(values)) == [4.0, 2.0]
    assert percentile([float(value) for value in range(100)], 0.99) == 99.0
    assert percentile([1.0], 0.5) == 1.0

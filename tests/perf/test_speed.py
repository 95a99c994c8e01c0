"""What of speed can be counted. Times are `make bench`'s: asserted in a test they would fail on a busy machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.bench import tick
from scripts.bench.measure import Figure, at_least, at_most, by_turns, percentile


def test_calls_a_tick_do_not_grow_with_the_jobs(tmp_path: Path) -> None:
    beds = [tick.Bed(tmp_path / f"{count}.db", count) for count in (100, 1000)]
    calls = [bed.calls_a_tick() for bed in beds]
    assert calls[0] == calls[1]
    assert all(bed.backend.calls["observe_all"] == bed.backend.calls["read_lines"] == 1 for bed in beds)
    for bed in beds:
        bed.store.close()


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

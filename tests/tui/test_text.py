"""Nothing that anyone wrote reaches the terminal but printable text, and all of it is measured in cells."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from tui import format as fmt
from tui.text import clean, crop, fit, wrap, wrap_block

ANY = st.text(st.characters(codec=None), max_size=200)
HOSTILE = st.lists(
    st.sampled_from(
        ["\x1b[31m", "\x1b]0;title\x07", "\x1bP", "\x1b\\", "\x9b2J", "\x00", "\r", "\u202e", "\ud800", "漢", "a", "é"]
    )
).map("".join)


@given(ANY | HOSTILE)
@example("\x1b]52;c;ZXZpbA==\x07")
@example("\x1b[2J\x1b[H\x1b[?1049h")
def test_clean_text_holds_nothing_that_a_terminal_obeys(text: str) -> None:
    cleaned = clean(text)
    assert cleaned.isprintable()
    assert not {"Cc", "Cf", "Cs", "Zl", "Zp"} & {unicodedata.category(character) for character in cleaned}
    cleaned.encode("utf-8")
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[1;31mred\x1b[0m text", "red text"),
        ("\x1b]8;;http://example.org\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;owned\x07after", "after"),
        ("a\tb", "a       b"),
        ("bell\x07", "bell␇"),
        ("two\nlines", "two⏎lines"),
        ("rtl\u202egnp.exe", "rtl�gnp.exe"),
        ("half \ud83d", "half �"),
        ("zero\u200bwidth", "zerowidth"),
        ("漢字 ok", "漢字 ok"),
    ],
)
def test_clean(raw: str, shown: str) -> None:
    assert clean(raw) == shown


@given(ANY.map(clean), st.integers(0, 60), st.booleans())
def test_fitted_text_takes_exactly_its_cells(text: str, cells: int, right: bool) -> None:
    assert cell_len(fit(text, cells, right=right)) == cells


@given(ANY.map(clean), st.integers(2, 60))
def test_wrapped_text_fits_and_loses_nothing(text: str, cells: int) -> None:
    rows = wrap(text, cells)
    assert all(cell_len(row) <= cells for row in rows)
    assert "".join(rows).replace(" ", "") == text.replace(" ", "")


def test_what_is_cut_says_so() -> None:
    assert crop("abcdef", 4) == "abc…"
    assert crop("漢字漢字", 4) == "漢…"
    assert wrap_block("one\ntwo three", 5) == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        ("x", "–"),
        (True, "–"),
        (float("nan"), "–"),
        (10**400, "–"),
        (0, "0"),
        (2.6549, "2.655"),
        (12.345, "12.35"),
        (123456, "1.2e+05"),
        (0.91, "0.910"),
        (0.0123, "0.0123"),
        (3e-5, "3.0e-05"),
    ],
)
def test_loss(value: object, shown: str) -> None:
    assert fmt.loss(value) == shown


@given(st.floats(min_value=-1e300, max_value=1e300))
def test_a_loss_is_at_most_seven_cells_wide(value: float) -> None:
    assert len(fmt.loss(value).strip("-")) <= 7


@pytest.mark.parametrize(
    ("seconds", "short", "long"),
    [
        (-3, "0s", "0s"),
        (59.9, "59s", "59s"),
        (245, "4m", "4m05s"),
        (7500, "2h", "2h05m"),
        (273_600, "3d", "3d04h"),
        (None, "–", "–"),
        (float("inf"), "–", "–"),
    ],
)
def test_times(seconds: float | None, short: str, long: str) -> None:
    assert (fmt.age(seconds), fmt.duration(seconds)) == (short, long)


@given(st.floats(0, 1), st.integers(0, 80))
def test_a_bar_fills_its_cells_and_is_full_only_at_the_end(part: float, cells: int) -> None:
    full, empty = fmt.bar(part, cells)
    assert len(full + empty) == cells
    assert fmt.percent(part) == "100%" or part < 1
    if cells and part < 1:
        assert "█" * cells != full

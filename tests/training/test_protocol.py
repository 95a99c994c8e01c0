from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.protocol import Emitter, Line, parse_line

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.dictionaries(
    st.text().filter(lambda name: name not in {"ainfinity", "seq", "kind", "at"}), JSON_VALUES, max_size=6
)


def written(use: Callable[[Emitter], object], base: int = 0) -> bytes:
    """What `use` makes an emitter write, read from a real pipe while it writes."""
    read_end, write_end = os.pipe()
    chunks: list[bytes] = []

    def drain() -> None:
        while chunk := os.read(read_end, 65536):
            chunks.append(chunk)

    reader = threading.Thread(target=drain)
    reader.start()
    try:
        use(Emitter(write_end, base, clock=lambda: 12.5))
    finally:
        os.close(write_end)
        reader.join()
        os.close(read_end)
    return b"".join(chunks)


def parsed(raw: bytes) -> list[Line | None]:
    return [parse_line(text) for text in raw.decode().splitlines()]


@given(st.text(min_size=1), FIELDS, st.integers(0, 2**40))
def test_any_line_round_trips(kind: str, data: dict[str, Any], base: int) -> None:
    raw = written(lambda emitter: emitter.emit(kind, **data), base)
    assert parsed(raw) == [Line(seq=base + 1, kind=kind, at=12.5, data=data)]


@given(st.text())
def test_garbage_is_plain_text(text: str) -> None:
    assert parse_line(text) is None


@given(st.dictionaries(st.sampled_from(["ainfinity", "seq", "kind", "at", "x"]), JSON_VALUES))
def test_a_damaged_envelope_never_raises(envelope: dict[str, Any]) -> None:
    line = parse_line(json.dumps(envelope))
    assert line is None or (line.seq >= 0 and line.kind)


@pytest.mark.parametrize(
    "text",
    [
        '{"ainfinity":2,"seq":1,"kind":"step","at":1}',
        '{"ainfinity":true,"seq":1,"kind":"step","at":1}',
        '{"ainfinity":1,"seq":-1,"kind":"step","at":1}',
        '{"ainfinity":1,"seq":1.0,"kind":"step","at":1}',
        '{"ainfinity":1,"seq":99999999999999999999,"kind":"step","at":1}',
        '{"ainfinity":1,"seq":1,"kind":"","at":1}',
        '{"ainfinity":1,"seq":1,"kind":"step","at":NaN}',
        '{"ainfinity":1,"seq":1,"kind":"step","at":1e999}',
        '{"ainfinity":1,"seq":1,"kind":"step","at":1',
        'INFO {"ainfinity":1,"seq":1,"kind":"step","at":1}',
        '{"ainfinity":' + "[" * 100_000,
        '{"ainfinity":1,"seq":' + "9" * 5000 + "}",
    ],
)
def test_what_is_not_a_line_of_this_version_is_none(text: str) -> None:
    assert parse_line(text) is None


def test_an_unknown_kind_passes_through() -> None:
    assert parse_line('{"ainfinity":1,"seq":1,"kind":"new","at":1,"x":2}\r\n') == Line(
        seq=1, kind="new", at=1.0, data={"x": 2}
    )


@pytest.mark.parametrize(
    "hostile", ["a\nb", '\r\n{"ainfinity":1,"seq":9,"kind":"finished","at":1}\n', "\x1b[2J", "\u2028", "\x00\x85"]
)
def test_no_value_can_end_or_forge_a_line(hostile: str) -> None:
    raw = written(lambda emitter: emitter.emit("sample", answer=hostile))
    assert raw.count(b"\n") == 1
    assert all(byte == 0x0A or 0x20 <= byte < 0x7F for byte in raw)
    line = parse_line(raw.decode())
    assert line is not None
    assert line.data == {"answer": hostile}


def test_numbers_that_json_has_not_become_null() -> None:
    raw = written(lambda emitter: emitter.emit("step", loss=float("nan"), lr=float("inf"), deep=[{"x": float("-inf")}]))
    (line,) = parsed(raw)
    assert line is not None
    assert line.data == {"loss": None, "lr": None, "deep": [{"x": None}]}


def test_lone_surrogates_become_replacement_characters() -> None:
    (line,) = parsed(written(lambda emitter: emitter.emit("sample", answer="a\ud800b\U0001f600")))
    assert line is not None
    assert line.data == {"answer": "a\ufffdb\U0001f600"}
    hostile = parse_line('{"ainfinity":1,"seq":1,"kind":"x","at":1,"y":"\\ud800"}')
    assert hostile is not None
    assert hostile.data["y"].encode() == "\ufffd".encode()


def test_seq_rises_and_lines_larger_than_a_pipe_stay_whole() -> None:
    def use(emitter: Emitter) -> None:
        for _ in range(3):
            emitter.emit("sample", answer="x" * 300_000)

    lines = parsed(written(use, base=7 << 32))
    assert [line and line.seq - (7 << 32) for line in lines] == [1, 2, 3]


@pytest.mark.parametrize("name", ["ainfinity", "seq", "at"])
def test_fields_cannot_replace_the_envelope(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Emitter(1).emit("step", **{name: 1})


def test_a_field_cannot_replace_the_kind() -> None:
    with pytest.raises(ValueError, match="kind"):
        Emitter(1).emit("step", kind="finished")

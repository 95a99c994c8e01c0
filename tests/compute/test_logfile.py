"""Every line of a log once, whole, in bounded memory, while somebody writes it."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ainfinity.compute import logfile
from ainfinity.compute.logfile import CHUNK, KEPT, read_lines


def never() -> bool:
    return False


def always() -> bool:
    return True


def read_all(path: Path, offset: int = 0, *, over: bool = True) -> tuple[list[str], int]:
    found: list[str] = []
    while True:
        new = read_lines(path, offset, lambda: over)
        if new.offset == offset:
            assert not new.lines
            return found, offset
        found += new.lines
        offset = new.offset


def test_a_log_that_is_not_there_yet(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "log", 0, always) == logfile.Lines((), 0)


def test_a_partial_last_line_waits_for_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\ntw")
    first = read_lines(log, 0, never)
    assert first == logfile.Lines(("one",), 4)
    assert read_lines(log, 4, never) == logfile.Lines((), 4)
    with log.open("ab") as file:
        file.write(b"o\n\nthr")
    assert read_lines(log, 4, never) == logfile.Lines(("two", ""), 9)
    assert read_lines(log, 9, always) == logfile.Lines(("thr",), 12)
    assert read_lines(log, 12, always) == logfile.Lines((), 12)


def test_what_is_written_while_the_end_is_being_told_is_not_split(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"par")

    def ends_now() -> bool:
        with log.open("ab") as file:
            file.write(b"tial\nlast")
        return True

    assert read_lines(log, 0, ends_now) == logfile.Lines(("partial",), 8)
    assert read_lines(log, 8, always) == logfile.Lines(("last",), 12)


def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"a\xff\xfeb\x00\n\xe2\x82\n")
    assert read_lines(log, 0, never).lines == ("a��b\x00", "�")


def test_other_line_ends_stay_inside_the_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes("10%\r20%\r\n\x0b\u2028x\n".encode())
    assert read_lines(log, 0, never).lines == ("10%\r20%\r", "\x0b\u2028x")


def test_one_call_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 99 + b"\n")
    log.write_bytes(log.read_bytes() * (CHUNK // 100 * 3))
    first = read_lines(log, 0, never)
    assert CHUNK - 100 <= first.offset <= CHUNK
    lines, offset = read_all(log)
    assert len(lines) == CHUNK // 100 * 3
    assert offset == log.stat().st_size


def test_a_giant_line_is_cut_and_not_held_in_memory(tmp_path: Path) -> None:
    log = tmp_path / "log"
    size = 20 << 20
    with log.open("wb") as file:
        file.write(b"before\n")
        for _ in range(20):
            file.write(b"y" * (1 << 20))
        file.write(b"\nafter\n")
    tracemalloc.start()
    lines, offset = read_all(log)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * CHUNK
    assert offset == log.stat().st_size
    assert [lines[0], lines[2]] == ["before", "after"]
    assert lines[1] == "y" * KEPT + f" … [cut: the line has {size} bytes]"


def test_a_giant_line_without_an_end_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"z" * (3 * CHUNK))
    assert read_lines(log, 0, never) == logfile.Lines((), 0)
    over = read_lines(log, 0, always)
    assert over.offset == 3 * CHUNK
    assert over.lines[0].endswith(f"[cut: the line has {3 * CHUNK} bytes]")
    # One that never ends comes in pieces, so that a call stays short.
    monkeypatch.setattr(logfile, "SCANNED", 2 * CHUNK)
    assert read_lines(log, 0, never).offset == 2 * CHUNK


@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(1, 16))
def test_any_pieces_give_the_same_lines(pieces: list[bytes], chunk: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(logfile, "CHUNK", 64 + chunk)
        log = Path(folder) / "log"
        found: list[str] = []
        offset = 0
        for piece in pieces:
            with log.open("ab") as file:
                file.write(piece)
            new, offset = read_all(log, offset, over=False)
            found += new
        rest, offset = read_all(log, offset)
        text = b"".join(pieces)
        if any(len(line) >= 64 for line in text.split(b"\n")):
            assert offset == len(text)
            return
        expected = text.decode(errors="replace").split("\n")
        assert found + rest == (expected[:-1] if not expected[-1] else expected)


WRITER = """
import os, random, sys
random.seed(7)
data = b"".join(b"%d %s\\n" % (i, b"x" * random.randrange(200)) for i in range(60000))
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
while data:
    n = random.randrange(1, 5000)
    os.write(fd, data[:n])
    data = data[n:]
"""


def test_reading_while_another_process_writes_loses_and_doubles_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    writer = subprocess.Popen([sys.executable, "-S", "-c", WRITER, str(log)])
    numbers: list[int] = []
    offset = reads_while_writing = 0
    over = False
    while True:
        over = writer.poll() is not None
        new = read_lines(log, offset, lambda over=over: over)
        reads_while_writing += bool(new.lines) and not over
        numbers += [int(line.split(" ")[0]) for line in new.lines]
        if over and new.offset == offset:
            break
        offset = new.offset
    assert numbers == list(range(60000))
    assert reads_while_writing > 2, "control: it was read while it was written"

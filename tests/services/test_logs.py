"""Logs by bytes: from any place, of a file that grows, whatever is in it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ainfinity.core.exceptions import NotFound
from ainfinity.core.redact import HIDDEN
from ainfinity.schema.event import EventType
from ainfinity.schema.states import JobState
from ainfinity.services import logs
from ainfinity.services.logs import LogService, tail_offset
from tests.services.workplace import Workplace


class Log:
    """The log of a job's only attempt."""

    def __init__(self, work: Workplace, state: JobState = JobState.RUNNING) -> None:
        self.job = work.in_state(state)
        self.service = LogService(work.store, work.settings.attempts_dir)
        self.path = work.settings.attempts_dir / f"ain-{self.job}-a1" / "log.txt"
        self.path.parent.mkdir(parents=True)
        self.work = work

    def write(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    def end(self) -> None:
        self.work.record(self.job, EventType.ATTEMPT_FAILED, EventType.FAILED)

    def follow(self) -> list[str]:
        """Read to the end in pieces."""
        lines: list[str] = []
        chunk = self.service.read(self.job)
        while True:
            lines += chunk.lines
            previous, chunk = chunk, self.service.read(self.job, offset=chunk.offset)
            if chunk.offset == previous.offset:
                return lines


def test_a_growing_log_gives_every_line_once(work: Workplace) -> None:
    log = Log(work)
    assert log.service.read(log.job).lines == ()
    log.write(b"one\ntwo\nthr")
    first = log.service.read(log.job)
    assert (list(first.lines), first.offset, first.ended) == (["one", "two"], 8, False)
    assert log.service.read(log.job, offset=8).lines == []
    log.write(b"ee\n")
    second = log.service.read(log.job, offset=first.offset)
    assert (list(second.lines), second.offset) == (["three"], 14)
    log.write(b"no end")
    assert log.service.read(log.job, offset=14).lines == []
    log.end()
    last = log.service.read(log.job, offset=14)
    assert (list(last.lines), last.offset, last.ended) == (["no end"], 20, True)


def test_random_growth_and_reading_give_the_lines_that_were_written(work: Workplace) -> None:
    chance, log, seen, offset = random.Random(3), Log(work), [], 0
    lines = [f"{number} " + "ä" * chance.randrange(40) for number in range(400)]
    data = "".join(f"{line}\n" for line in lines).encode()
    while data:
        count = chance.randrange(1, 300)
        log.write(data[:count])
        data = data[count:]
        chunk = log.service.read(log.job, offset=offset)
        seen += chunk.lines
        offset = chunk.offset
    assert seen == lines


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"\n\na\n", ["", "", "a"]),
        (b"caf\xe9\n\xff\xfe\n", ["caf\N{REPLACEMENT CHARACTER}", "\N{REPLACEMENT CHARACTER}" * 2]),
        (b"10%\r20%\r\n", ["10%", "20%"]),
        ('{"text": "a\u2028b\x0b\x0c\x1c\x85"}\n'.encode(), ['{"text": "a\u2028b\x0b\x0c\x1c\x85"}']),
        (b"nul\0nul\n", ["nul\0nul"]),
    ],
    ids=["CRLF", "empty lines", "not UTF-8", "progress bar", "other separators", "NUL"],
)
def test_what_ends_a_line(work: Workplace, data: bytes, lines: list[str]) -> None:
    log = Log(work)
    log.write(data)
    chunk = log.service.read(log.job)
    assert (list(chunk.lines), chunk.offset) == (lines, len(data))
    assert list(log.service.read(log.job, tail=1).lines) == lines[-1:]


def test_a_line_of_5_mb_comes_in_pieces_and_ends(work: Workplace) -> None:
    log = Log(work)
    log.write(b"before\n" + b"x" * 5_000_000 + b"\nafter\n")
    lines = log.follow()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert "".join(lines[1:-1]) == "x" * 5_000_000
    assert all(len(line) <= 1 << 20 for line in lines)
    assert list(log.service.read(log.job, tail=1).lines) == ["after"]


@pytest.mark.parametrize("block", [3, 7, 1 << 16])
@pytest.mark.parametrize(
    "data", [b"", b"a", b"a\n", b"a\nbb\n\nccc\n", b"a\nbb\n\nccc", b"\n\n\n", b"x" * 50 + b"\ny\n"]
)
def test_tails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, block: int) -> None:
    monkeypatch.setattr(logs, "_BLOCK", block)
    path = tmp_path / "log.txt"
    path.write_bytes(data)
    lines = data.removesuffix(b"\n").split(b"\n") if data else []
    for count in range(len(lines) + 3):
        rest = data[tail_offset(path, count) :]
        wanted = lines[-count:] if count else []
        assert rest.removesuffix(b"\n").split(b"\n") == wanted or (rest == b"" and not wanted)


def test_a_tail_of_a_large_log_reads_its_end_only(work: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(work)
    log.write(b"line\n" * 2_000_000)
    read = 0
    real = logs.tail_offset

    def counted(path: Path, lines: int) -> int:
        nonlocal read
        offset = real(path, lines)
        read = path.stat().st_size - offset
        return offset

    monkeypatch.setattr(logs, "tail_offset", counted)
    chunk = log.service.read(log.job, tail=10)
    assert list(chunk.lines) == ["line"] * 10
    assert read == 50
    assert chunk.offset == 10_000_000


def test_places_beyond_the_file_are_its_end(work: Workplace) -> None:
    log = Log(work)
    log.write(b"one\n")
    assert log.service.read(log.job, offset=99).offset == 4
    assert list(log.service.read(log.job, offset=-5).lines) == ["one"]
    assert log.service.read(log.job, tail=0).lines == []
    assert log.service.read(log.job, tail=-3).lines == []


def test_attempts_have_logs_of_their_own(work: Workplace) -> None:
    log = Log(work, JobState.FAILED)
    log.write(b"first attempt\n")
    work.record(log.job, EventType.RETRIED)
    work.record(log.job, EventType.ATTEMPT_INTENDED, attempt=2)
    assert (log.service.read(log.job).attempt, log.service.read(log.job).lines) == (2, ())
    assert list(log.service.read(log.job, attempt=1).lines) == ["first attempt"]
    with pytest.raises(NotFound) as caught:
        log.service.read(log.job, attempt=3)
    assert "2" in caught.value.hint


def test_what_looks_like_a_secret_is_hidden(work: Workplace) -> None:
    log = Log(work)
    log.write(b"using hf_abcdefghijklmnopqrstuvwxyz\n")
    assert list(log.service.read(log.job).lines) == [f"using {HIDDEN}"]

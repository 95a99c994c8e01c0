"""What SkyPilot adds comes off, and nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ainfinity.compute.remote.prefix import read_line, strip_prefix

PREFIXES = [
    ("\x1b[36m(setup pid=1088)\x1b[0m ", ""),
    ("\x1b[36m(lgs-task, pid=1124)\x1b[0m ", ""),
    ("\x1b[36m(a (strange, pid=3) name, pid=1124)\x1b[0m ", ""),
    ("\x1b[36m(head, rank=0, pid=469)\x1b[0m ", ""),
    ("\x1b[36m(worker1, rank=1, pid=310, ip=127.0.10.12)\x1b[0m ", "[1] "),
    ("\x1b[36m(setup pid=31, ip=127.0.10.12)\x1b[0m ", "[127.0.10.12] "),
    ("(task, pid=4, ip=fe80::1) ", "[fe80::1] "),
    ("(head, rank=0, pid=469) ", ""),
    ("(worker7, rank=7, pid=1) ", "[7] "),
]
#: Any text a program can print as one line, without the escape codes that are taken off on purpose.
TEXT = st.text(st.characters(blacklist_characters="\n\r\x1b", blacklist_categories=("Cs",)), max_size=80)


@given(text=TEXT, prefix=st.sampled_from(PREFIXES))
def test_any_text_survives(text: str, prefix: tuple[str, str]) -> None:
    before, tag = prefix
    assert strip_prefix(f"{before}{text}\n") == f"{tag}{text}"


@given(text=TEXT, outer=st.sampled_from(PREFIXES), inner=st.sampled_from(PREFIXES), at=st.integers(0, 80))
def test_what_looks_like_a_prefix_inside_a_line_survives(
    text: str, outer: tuple[str, str], inner: tuple[str, str], at: int
) -> None:
    look = inner[0].replace("\x1b[36m", "").replace("\x1b[0m", "")
    text = text[:at] + look + text[at:]
    assert strip_prefix(f"{outer[0]}{text}") == f"{outer[1]}{text}"


@given(value=TEXT, prefix=st.sampled_from(PREFIXES))
def test_a_line_of_the_protocol_is_exact_from_any_node(value: str, prefix: tuple[str, str]) -> None:
    line = json.dumps({"ainfinity": 1, "seq": 7, "kind": "sample", "at": 1.5, "text": f"\x1b[0m{value}\n"})
    assert strip_prefix(f"{prefix[0]}{line}\r\n") == line


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("\x1b[36m(t, pid=1)\x1b[0m \x1b[31mred\x1b[0m and \x1b]8;;http://x\x07link\x1b]8;;\x07\n", "red and link"),
        ("\x1b[36m(t, pid=1)\x1b[0m \n", ""),
        ("\x1b[36m(t, pid=1)\x1b[0m   indented\n", "  indented"),
        ("\x1b[2m└── \x1b[0mJob started. \x1b[2m(Ctrl-C to exit)\x1b[0m\n", "└── Job started. (Ctrl-C to exit)"),
        ("(not a prefix) text", "(not a prefix) text"),
        ("(pid=3) text", "(pid=3) text"),
        ("plain", "plain"),
    ],
)
def test_lines_as_they_come(line: str, text: str) -> None:
    assert strip_prefix(line) == text
    assert read_line(line).text == text


def test_skypilots_own_lines_are_told_from_a_jobs_that_look_alike() -> None:
    begin = "\x1b[2m├── \x1b[0m\x1b[2mWaiting for task resources on 2 nodes.\x1b[0m\n"
    ended = "\x1b[0m\x1b[32m✓ Job finished (status: FAILED_SETUP).\x1b[0m\x1b[0m\n"
    managed = "✓ Managed job finished: 12 (status: SUCCEEDED).\n"
    assert read_line(begin).begins
    assert (read_line(ended).end, read_line(ended).framing) == ("FAILED_SETUP", True)
    assert read_line(managed).end == "SUCCEEDED"
    for line in (begin, ended, managed):
        said = read_line(f"\x1b[36m(t, pid=1)\x1b[0m {line}")
        assert (said.own, said.begins, said.end, said.framing) == (True, False, "", False)

"""Secrets of an attempt never reach its log, whatever prints them."""

from __future__ import annotations

import os
import signal
import threading

import psutil
from hypothesis import given, settings
from hypothesis import strategies as st

from ainfinity.compute.folder import AttemptFolder
from ainfinity.compute.processes import list_processes, members_of
from ainfinity.compute.redactor import hide, pieces
from ainfinity.core.redact import learn
from tests.compute.place import NAME, Place, wait_for

CANARY = "canary-0123456789abcdef"


def log(place: Place) -> str:
    file = place.folder() / "log.txt"
    return file.read_text() if file.exists() else ""


def through(*parts: bytes) -> bytes:
    source, sink = os.pipe()

    def write() -> None:
        for part in parts:
            os.write(sink, part)
        os.close(sink)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        return b"".join(hide(piece) for piece in pieces(source))
    finally:
        writer.join()
        os.close(source)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, len(CANARY)), st.sampled_from([b"\n", b"\r", b""]), st.binary(max_size=30))
def test_a_secret_is_hidden_however_its_bytes_arrive(cut: int, end: bytes, noise: bytes) -> None:
    learn([CANARY])
    secret = CANARY.encode()
    out = through(noise + b" ", secret[:cut], secret[cut:] + end, b"tail\n")
    assert secret not in out
    assert out.endswith(b"tail\n")


def test_everything_else_passes_unchanged() -> None:
    data = b"caf\xc3\xa9 \xff\xfe\x00 100%\rnext\nlast without an end"
    assert through(data[:7], data[7:]) == data


def test_a_secret_in_an_endless_line_is_hidden() -> None:
    learn([CANARY])
    out = through(b"x" * 1_500_000, CANARY.encode(), b"y" * 1_500_000)
    assert CANARY.encode() not in out
    assert out.count(b"x") >= 1_500_000


def test_an_attempt_with_a_secret_logs_without_it_even_when_its_supervisor_is_killed(place: Place) -> None:
    compute = place.backend()
    compute.launch(place.request(secrets={"HF_TOKEN": CANARY}, recipe={"lines": [f"my token is {CANARY}"]}))
    wait_for(lambda: "my token is" in log(place))
    os.kill(place.supervisor(NAME), signal.SIGKILL)
    (place.control(NAME) / "say").write_text(f"still {CANARY} here\n")
    wait_for(lambda: "still" in log(place))
    assert CANARY not in log(place)
    assert log(place).count("[hidden]") == 2


def test_without_secrets_the_same_text_stands_in_the_log(place: Place) -> None:
    """The negative control: it is the redactor that hides it."""
    place.backend().launch(place.request(recipe={"lines": [f"my token is {CANARY}"]}))
    wait_for(lambda: "my token is" in log(place))
    assert CANARY in log(place)


def test_the_end_of_the_log_survives_a_kill_after_the_grace(place: Place) -> None:
    place.grace = 0.5
    compute = place.backend()
    request = place.request(secrets={"HF_TOKEN": CANARY}, recipe={"stubborn": True})
    # Without an end of line it is held back for as long as somebody may write the rest of a secret.
    (place.control() / "say").write_text("the last words")
    compute.launch(request)
    place.started()
    compute.stop(NAME)
    assert place.until_over(compute).exit_code == 137
    assert log(place) == "the last words"


def test_what_hides_secrets_belongs_to_the_attempt(place: Place) -> None:
    compute = place.backend()
    compute.launch(place.request(secrets={"HF_TOKEN": CANARY}))
    place.started()
    mark = AttemptFolder(place.folder()).mark
    names = {
        "redactor" if "ainfinity.compute.redactor" in psutil.Process(process.identity.pid).cmdline() else "other"
        for process in members_of(mark, list_processes())
    }
    assert "redactor" in names, "else it could stay behind unseen"


def test_a_command_that_does_not_exist_leaves_no_redactor(place: Place) -> None:
    place.grace = 60.0
    compute = place.backend(command=lambda request, recipe: ["/no/such/program"])
    compute.launch(place.request(secrets={"HF_TOKEN": CANARY}))
    assert place.until_over(compute).exit_code == 127

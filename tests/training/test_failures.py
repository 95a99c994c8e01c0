from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training.errors import TrainingError, invalid
from training.failures import as_failure
from training.stopping import StopRequest


def test_memory_that_runs_out_is_named() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58)
    failure = as_failure(caught.value)
    assert failure.code == "out_of_memory"
    assert "micro_batch_size" in failure.hint


def test_a_full_disk_is_named_whoever_meets_it() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError) as from_python, full.open("wb", buffering=0) as file:
        file.write(b"x")
    assert as_failure(from_python.value).code == "disk_full"
    with pytest.raises(Exception) as from_torch:
        torch.save(torch.zeros(10), full)
    assert as_failure(from_torch.value).code == "disk_full"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOTDIR])
def test_a_folder_that_cannot_be_written_is_named(code: int) -> None:
    failure = as_failure(OSError(code, os.strerror(code), "/somewhere"))
    assert failure.code == "not_writable"
    assert "/somewhere" in failure.message


def test_what_nobody_foresaw_is_internal_with_its_traceback_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    try:
        {}["key"]  # type: ignore[index]
    except KeyError as error:
        failure = as_failure(error)
    out, err = capfd.readouterr()
    assert failure.code == "internal"
    assert out == ""
    assert "Traceback" in err


def test_failures_pass_from_rank_to_rank_whole() -> None:
    error = pickle.loads(pickle.dumps(invalid("data_invalid", "m", "h")))
    assert isinstance(error, TrainingError)
    assert (error.code, error.message, error.hint, error.exit_code, error.shared) == ("data_invalid", "m", "h", 2, True)


def test_a_deadline_is_a_reason_to_stop() -> None:
    now = 10.0
    stop = StopRequest(deadline=11.0, clock=lambda: now)
    assert stop.reason() is None
    now = 11.0
    assert stop.reason() == "deadline"


def test_a_deadline_that_was_changed_counts(tmp_path: Path) -> None:
    now = 10.0
    stop = StopRequest(deadline=11.0, clock=lambda: now)
    stop.file = tmp_path / "deadline"
    assert stop.limit() == 11.0
    for text, limit in (("50\n", 50.0), ("none", None), ("7x", None), ("30.5", 30.5), ("", 30.5)):
        stop.file.write_text(text)
        now += 5.0
        assert stop.limit() == limit
    assert stop.reason() == "deadline"
    stop.file.unlink()
    now += 5.0
    assert stop.limit() == 30.5


def test_ranks_elsewhere_follow_the_deadline_of_rank_zero(tmp_path: Path) -> None:
    stop = StopRequest(deadline=11.0, clock=lambda: 20.0)
    stop.file, stop.decides = tmp_path / "deadline", False
    assert stop.reason() is None
    stop.follow(11.0)
    assert not stop.file.exists()
    for limit, text in ((99.25, "99.25\n"), (None, "none\n")):
        stop.follow(limit)
        assert stop.file.read_text() == text
        assert stop.limit() == limit
    stop.file = tmp_path / "gone" / "deadline"
    stop.follow(5.0)  # cannot be written: that is said and harms nothing


TWO_SIGNALS = """
import itertools, os, signal, sys
from training.stopping import StopRequest
seconds = itertools.count(0, int(sys.argv[1]))
stop = StopRequest(clock=lambda: next(seconds))
stop.install()
stop.wait_for_step()
for _ in range(2):
    os.kill(os.getpid(), signal.SIGTERM)
print(stop.reason())
"""


@pytest.mark.parametrize(("seconds", "code", "said"), [(1, 0, "sigterm"), (10, 128 + signal.SIGTERM, "")])
def test_a_second_signal_counts_only_if_it_is_no_echo_of_the_first(seconds: int, code: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWO_SIGNALS, str(seconds)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (code, said)

"""Answers from outside: an old one with its age and the reason, and one process however many ask."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from ainfinity.compute.remote.rows import RequestLost
from ainfinity.core.exceptions import ComputeUnreachable, NotFound, Unreachable
from ainfinity.services import outside
from ainfinity.services.outside import OutsideService, error_of, run_ask
from tests.services.workplace import TickingClock


class Runner:
    """Stands for the process: counts its runs and answers as told."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.answer: Any = {"n": 1}
        self.hold: threading.Event | None = None
        self.begun = threading.Event()

    def __call__(self, question: str, arguments: Mapping[str, Any], limit: float) -> Any:
        self.runs.append(question)
        self.begun.set()
        if self.hold is not None:
            assert self.hold.wait(60)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def clock() -> TickingClock:
    return TickingClock()


@pytest.fixture
def runner() -> Runner:
    return Runner()


@pytest.fixture
def service(tmp_path: Path, clock: TickingClock, runner: Runner) -> OutsideService:
    return OutsideService(tmp_path, clock, runner)


def test_an_answer_is_kept_for_as_long_as_it_may_be_old(
    service: OutsideService, clock: TickingClock, runner: Runner
) -> None:
    first = service.ask("gpus", {"name": "H100"}, max_age=60)
    clock.move(59)
    runner.answer = {"n": 2}
    assert service.ask("gpus", {"name": "H100"}, max_age=60) == first
    clock.move(2)
    assert service.ask("gpus", {"name": "H100"}, max_age=60).value == {"n": 2}
    assert len(runner.runs) == 2


def test_other_arguments_are_another_question(service: OutsideService, runner: Runner) -> None:
    service.ask("gpus", {"name": "H100"}, max_age=60)
    service.ask("gpus", {"name": "A100"}, max_age=60)
    service.ask("price", {"name": "H100"}, max_age=60)
    assert len(runner.runs) == 3


def test_refresh_asks_however_new_it_is(service: OutsideService, clock: TickingClock, runner: Runner) -> None:
    service.ask("gpus", max_age=60)
    clock.move(1)
    service.ask("gpus", max_age=60, refresh=True)
    assert len(runner.runs) == 2


def test_an_old_answer_is_given_with_its_age_and_the_reason(
    service: OutsideService, clock: TickingClock, runner: Runner
) -> None:
    asked = clock.now()
    service.ask("gpus", max_age=60)
    clock.move(3600)
    runner.answer = ComputeUnreachable("The server is down.", hint="Start it.")
    answer = service.ask("gpus", max_age=60)
    assert (answer.value, answer.at) == ({"n": 1}, asked)
    assert answer.error == {"code": "compute_unreachable", "message": "The server is down.", "hint": "Start it."}


def test_without_an_old_answer_the_error_is_raised_as_it_is(service: OutsideService, runner: Runner) -> None:
    runner.answer = NotFound("There is no such thing.", hint="Look again.")
    with pytest.raises(NotFound, match="no such thing") as caught:
        service.ask("gpus", max_age=60)
    assert caught.value.hint == "Look again."


def test_after_a_failure_it_is_not_asked_at_once_again(
    service: OutsideService, clock: TickingClock, runner: Runner
) -> None:
    runner.answer = ComputeUnreachable("down")
    for _ in range(5):
        with pytest.raises(ComputeUnreachable):
            service.ask("gpus", max_age=60)
        clock.move(0.5)
    assert len(runner.runs) == 1
    clock.move(5)
    runner.answer = {"n": 3}
    answer = service.ask("gpus", max_age=60)
    assert (answer.value, answer.error, len(runner.runs)) == ({"n": 3}, {}, 2)


def test_an_old_answer_is_not_new_because_asking_failed(
    service: OutsideService, clock: TickingClock, runner: Runner
) -> None:
    service.ask("gpus", max_age=60)
    clock.move(100)
    runner.answer = ComputeUnreachable("down")
    service.ask("gpus", max_age=60)
    clock.move(10)
    service.ask("gpus", max_age=60)
    assert len(runner.runs) == 3


@pytest.mark.parametrize("text", ["", "{", "[]", '{"value": 1}', '{"value": 1, "at": "x", "done": 0, "error": {}}'])
def test_a_damaged_file_is_asked_anew(service: OutsideService, runner: Runner, text: str) -> None:
    service.ask("gpus", max_age=60)
    (file,) = service.files.folder.glob("*.json")
    file.write_text(text)
    assert service.ask("gpus", max_age=60).value == {"n": 1}
    assert len(runner.runs) == 2


@pytest.mark.parametrize("question", ["ssh", "start"])
def test_a_way_in_and_a_change_are_never_kept(service: OutsideService, runner: Runner, question: str) -> None:
    service.ask(question, {"cluster": "c"}, max_age=60)
    service.ask(question, {"cluster": "c"}, max_age=60)
    assert len(runner.runs) == 2
    assert not service.files.folder.exists()


def test_answers_are_for_their_owner_only(service: OutsideService) -> None:
    service.ask("gpus", max_age=60)
    assert service.files.folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("refresh", [False, True])
def test_many_who_ask_at_once_cause_one_process(service: OutsideService, runner: Runner, refresh: bool) -> None:
    runner.hold = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(service.ask, "gpus", max_age=60, refresh=refresh) for _ in range(8)]
        assert runner.begun.wait(60)
        time.sleep(0.2)  # so that the others have come to the lock
        runner.hold.set()
        answers = [one.result(60) for one in asking]
    assert {str(answer.value) for answer in answers} == {"{'n': 1}"}
    assert len(runner.runs) == 1


def test_control_without_the_lock_each_causes_its_own(
    service: OutsideService, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def everyone(*_: Any) -> contextlib.nullcontext[bool]:
        return contextlib.nullcontext(True)

    monkeypatch.setattr(service.files, "asking", everyone)
    runner.hold = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(service.ask, "gpus", max_age=60) for _ in range(4)]
        deadline = time.monotonic() + 60
        while len(runner.runs) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        runner.hold.set()
        for one in asking:
            one.result(60)
    assert len(runner.runs) == 4


def test_who_waits_for_another_in_vain_says_so(
    service: OutsideService, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "LIMIT", 0.1)
    monkeypatch.setattr(outside, "_SLACK", 0.1)
    with service.files.asking("gpus", {}, 1) as alone:
        assert alone
        with pytest.raises(ComputeUnreachable, match="Another process"):
            service.ask("gpus", max_age=60)
    assert runner.runs == []


# --- the process ------------------------------------------------------------


def replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Have the process run a script of the test instead."""
    path = tmp_path / "ask"
    path.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def test_arguments_go_in_and_the_value_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(tmp_path, monkeypatch, "print(json.dumps({'value': [sys.argv[3:], json.load(sys.stdin)]}))")
    argv, given = run_ask("gpus", {"name": "H100"}, 30.0)
    assert (argv, given) == (["gpus", "--limit", "30.0"], {"name": "H100"})


def test_an_error_comes_out_as_the_exception_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = {"code": "compute_unreachable", "message": "It is down.", "hint": "Start it."}
    replaced(tmp_path, monkeypatch, f"print(json.dumps({{'error': {error!r}}})); sys.exit(4)")
    with pytest.raises(ComputeUnreachable, match="It is down"):
        run_ask("gpus", {}, 30.0)


@pytest.mark.parametrize("script", ["print('nonsense')", "sys.exit('it broke')", "print('[]'); print('it broke', 2)"])
def test_a_process_that_breaks_is_an_error_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    replaced(tmp_path, monkeypatch, script)
    with pytest.raises(Unreachable, match="process that asks for 'gpus' failed"):
        run_ask("gpus", {}, 30.0)


def test_a_process_that_hangs_is_killed_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = tmp_path / "pids"
    child = f"pid = os.fork()\nopen({str(pids)!r}, 'a').write(f'{{os.getpid()}} ')\ntime.sleep(600)"
    replaced(tmp_path, monkeypatch, child)
    monkeypatch.setattr(outside, "_SLACK", 1.0)
    with pytest.raises(ComputeUnreachable, match="within 1 s"):
        run_ask("gpus", {}, 1.0)
    found = [int(pid) for pid in pids.read_text().split()]
    assert len(found) == 2
    gone, alive = psutil.wait_procs([psutil.Process(pid) for pid in found if runs(pid)], timeout=30)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE], gone


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_error_keeps_its_kind() -> None:
    for error in (ComputeUnreachable("a", hint="b"), NotFound("c", field="d"), Unreachable("e")):
        back = error_of(error.as_dict())
        assert (type(back), back.as_dict()) == (type(error), error.as_dict())
    # One without a code of its own does not stand for its parent.
    assert type(error_of(RequestLost("f").as_dict())) is ComputeUnreachable

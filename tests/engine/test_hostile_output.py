"""Whatever a trainer prints, the worker goes on, the log stays readable, and what it said well is taken in."""

from __future__ import annotations

import json
import random

import pytest

from ainfinity.engine.ingest import take_in
from ainfinity.store import progress
from tests.engine.workshop import Workshop

HUGE = 10**30
FINE = {"ainfinity": 1, "kind": "step", "at": 1.0, "step": 1, "total_steps": 8, "loss": 2.0, "step_seconds": 0.1}

#: Fields that no trainer should write, each in a line of a kind whose field it is.
ODD: list[dict[str, object]] = [
    {"kind": "step", "step": HUGE},
    {"kind": "step", "step": -HUGE, "total_steps": HUGE},
    {"kind": "step", "step": 1, "loss": 10**400},
    {"kind": "step", "step": 2, "loss": "low", "lr": [1], "step_seconds": True},
    {"kind": "step", "step": None, "total_steps": "many"},
    {"kind": "step", "step": 1e308, "step_seconds": 1e308, "total_steps": 2e308},
    {"kind": "step", "step": 3, "at": -1e18},
    {"kind": "started", "total_steps": HUGE, "resumed_step": 1e300},
    {"kind": "checkpoint", "step": HUGE, "path": "\ud800/\0"},
    {"kind": "checkpoint", "step": 4, "path": "x" * 100_000},
    {"kind": "checkpoint", "step": {"a": 1}, "path": ["no"]},
    {"kind": "eval", "loss": float("nan"), "step": float("inf")},
    {"kind": "sample", "prompt": "\ud83d", "answer": "a\0b" * 5000},
    {"kind": "warning", "message": {"\udfff": ["\ud800"]}},
    {"kind": "failed", "code": "x" * 100_000, "message": "m" * 1_000_000, "hint": ["\ud800"]},
    {"kind": "failed", "code": None, "message": None, "hint": None},
    {"kind": "finished", "output": "\0", "files": [{"path": "\ud800", "size": HUGE, "sha256": 5}, 7, None]},
    {"kind": "finished", "output": {"a": 1}, "files": "all"},
    {"kind": "finished", "step": -1e300, "output": "/", "files": [{}] * 3000},
    {"kind": "k" * 100_000},
    {"kind": "stopped", "reason": ["sigterm"], "seq": 2**63 - 1},
]
RAW = [
    "\x00\xff\x1b[31m",
    '{"ainfinity": 1, "seq": 9e999, "kind": "step"}',
    '{"ainfinity": 1, "seq": -1, "kind": "step"}',
    '{"ainfinity": ' + "[" * 50_000,
    '{"ainfinity": 1, "kind": "warning", "at": 1, "seq": 1, "message": ' + "[" * 900 + "]" * 900 + "}",
    '{"ainfinity": 1, "kind": "warning", "at": 1, "seq": 1, "message": ' + "9" * 5000 + "}",
]


def odd_lines() -> list[str]:
    """All of the above as a trainer's output, with a good line after each."""
    lines: list[str] = []
    seq = 0
    for fields in ODD:
        seq += 2
        lines += [
            json.dumps({"ainfinity": 1, "at": 1.0, "seq": seq, **fields}),
            json.dumps(FINE | {"seq": seq + 1, "step": seq}),
        ]
    lines += RAW
    return lines


def test_the_worker_survives_every_line(shop: Workshop) -> None:
    shop.control("first").mkdir(parents=True)
    text = "\n".join(odd_lines()) + "\n"
    (shop.control("first") / "lines").write_bytes(text.encode("utf-8", "surrogatepass"))
    script = "write((control / 'lines').read_bytes())\nsys.exit(1)\n"
    bad, good = shop.submit("first", script), shop.submit("good")
    with shop.engine() as engine:
        assert engine.until(bad, "failed", "succeeded") == "failed"
        assert engine.until(good, "failed", "succeeded") == "succeeded"
    shop.check_fold()
    detail = shop.service.get_job_status(bad)
    assert len(json.dumps(detail.result)) < 100_000
    assert len(detail.job.error_message) < 10_000
    assert detail.job.error_code
    assert len(detail.job.error_code) <= 100


@pytest.mark.parametrize("number", range(len(ODD)))
def test_each_line_alone(shop: Workshop, number: int) -> None:
    """One at a time, so that none hides behind another; stored as the engine does."""
    from ainfinity.store import events, jobs, metrics

    job = shop.submit()
    shop.record(job, "attempt.intended", "attempt.launched")
    line = json.dumps({"ainfinity": 1, "at": 1.0, "seq": 1, **ODD[number]})
    intake = take_in(job, 1, 0, [line])
    with shop.store.write() as connection:
        events.append(connection, intake.events)
        metrics.append_chunk(connection, job, 1, intake.points)
        if intake.progress is not None:
            progress.put(connection, job, intake.progress)
        jobs.add_artifacts(connection, intake.artifacts)
    shop.check_fold()
    shop.row(job)


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_to_good_lines(shop: Workshop, seed: int) -> None:
    chance = random.Random(seed)
    lines = odd_lines()
    for _ in range(500):
        text = chance.choice(lines)[:2000]
        cut = chance.randrange(len(text))
        match chance.randrange(3):
            case 0:
                text = text[:cut]
            case 1:
                text = text[:cut] + chance.choice('{}[]",:0e-\\u') + text[cut + 1 :]
            case _:
                text = text[:cut] + chance.choice(lines)[:500] + text[cut:]
        intake = take_in("job", 1, 0, [text])
        json.dumps([event.data for event in intake.events], allow_nan=False).encode()


def test_a_line_taken_in_twice_changes_nothing(shop: Workshop) -> None:
    lines = [json.dumps(FINE | {"seq": seq, "step": seq}) for seq in range(1, 6)]
    first = take_in("job", 1, 0, lines)
    again = take_in("job", 1, first.line_seq, lines)
    assert (len(first.points), first.line_seq) == (5, 5)
    assert (again.points, again.events, again.progress, again.line_seq) == ([], [], None, 5)


def test_text_that_is_cut_shows_no_part_of_a_secret(shop: Workshop) -> None:
    from ainfinity.core.redact import learn

    canary = "canary-4f9d" * 8
    learn([canary])
    for start in range(3950, 4001, 10):
        line = json.dumps({"ainfinity": 1, "at": 1.0, "seq": 1, "kind": "failed", "message": "x" * start + canary})
        (event,) = take_in("job", 1, 0, [line]).events
        assert "canary" not in event.data["message"]


def test_a_long_line_and_no_end_do_not_stop_the_rest(shop: Workshop) -> None:
    script = "start()\nwrite('x' * 5_000_000 + chr(10))\nstep(1)\nfinish()\nwrite('and no end')\n"
    job = shop.submit(script=script)
    with shop.engine() as engine:
        assert engine.until(job, "succeeded", "failed") == "succeeded"
    assert shop.row(job).progress.step == 1

"""Launches that cost money: the client is a double of the port."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest

from ainfinity.cli import launch
from ainfinity.cli.wait import ProgressLine
from ainfinity.core.exceptions import ApprovalNeeded
from ainfinity.schema.machines import SkyStatus
from ainfinity.schema.training_job import JobSpec
from ainfinity.schema.views import JobRow, PlanView, Progress


def row(state: str = "queued", **progress: Any) -> JobRow:
    return JobRow(
        *("abcdefghij", "demo", state, "run", "local:me", "org/m", "k8s", "", 0, (), "", 0),
        *(1.0, None, None, None, "", "", 1, Progress(**progress)),
    )


class Cloud:
    """The part of the client that a launch needs, in front of a backend that costs `price` dollars an hour."""

    def __init__(self, price: float | None) -> None:
        self.price = price
        self.submitted: list[tuple[str, str]] = []

    async def plan(self, spec: JobSpec) -> PlanView:
        candidate = {"infra": "k8s", "price_per_hour": self.price}
        return PlanView("0123456789abcdef", {"candidate": candidate}, spec.as_json(), needs_approval=False)

    async def submit(self, spec: JobSpec, key: str, *, plan_hash: str = "") -> JobRow:
        self.submitted.append((key, plan_hash))
        return row()

    async def ensure_worker(self) -> None: ...

    async def sky_status(self) -> SkyStatus:
        return SkyStatus("http://127.0.0.1:46580", local=True, reachable=True)


@pytest.fixture
def spec(home: Any) -> JobSpec:
    from ainfinity.schema.job_file import load_job_file

    return load_job_file(Path(home.work / "demo.yaml"), ["infra=k8s", "python="])


def run(client: Any, spec: JobSpec, *, yes: bool) -> int:
    return asyncio.run(launch._launch(client, spec, wait=False, yes=yes, key="k", as_json=False))


@pytest.mark.parametrize("price", [2.5, None])
def test_money_needs_a_yes_and_no_one_is_here(spec: JobSpec, price: float | None) -> None:
    client = Cloud(price)
    with pytest.raises(ApprovalNeeded) as caught:
        run(client, spec, yes=False)
    assert "--yes" in caught.value.hint
    assert client.submitted == []


def test_yes_submits_the_plan_that_was_shown(spec: JobSpec, capsys: pytest.CaptureFixture[str]) -> None:
    client = Cloud(2.5)
    assert run(client, spec, yes=True) == 0
    assert client.submitted == [("k", "0123456789abcdef")]
    assert "$2.5 an hour" in capsys.readouterr().err


def test_a_free_job_is_submitted_without_a_word(spec: JobSpec) -> None:
    client = Cloud(0.0)
    assert run(client, spec, yes=False) == 0
    assert len(client.submitted) == 1


@pytest.mark.parametrize(("answer", "code", "submitted"), [("y\n", 0, 1), ("n\n", 3, 0), ("", 3, 0)])
def test_a_person_is_asked(
    spec: JobSpec, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, submitted: int
) -> None:
    monkeypatch.setattr(launch, "interactive", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    client = Cloud(2.5)
    assert run(client, spec, yes=False) == code
    assert len(client.submitted) == submitted


def test_without_a_terminal_progress_comes_at_a_modest_rate(capsys: pytest.CaptureFixture[str]) -> None:
    line = ProgressLine(io.StringIO(), interval=3600.0)
    for step in range(1, 100):
        line.show(row("running", step=step, total_steps=100))
    line.show(row("succeeded", step=100, total_steps=100))
    shown = capsys.readouterr().err.splitlines()
    assert [text.split()[1] for text in shown] == ["running", "succeeded"]
    eager = ProgressLine(io.StringIO(), interval=0.0)
    for step in (1, 1, 2):
        eager.show(row("running", step=step, total_steps=100))
    assert len(capsys.readouterr().err.splitlines()) == 2

"""`kill -9` of real workers, at named steps and random moments: nothing lost, launched twice or left running."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
import sqlalchemy as sa

from ainfinity.core.exceptions import WrongState
from ainfinity.domain.fold import fold
from ainfinity.schema.actor import Actor
from ainfinity.schema.event import TERMINAL_EVENTS
from ainfinity.schema.states import JOB_LIVE, JOB_TERMINAL
from ainfinity.schema.training_job import JobSpec
from ainfinity.schema.views import JobQuery
from ainfinity.services.training_service import TrainingService
from ainfinity.store import events
from ainfinity.store.jobs import fold_of
from ainfinity.store.store import open_store
from ainfinity.store.tables import core
from tests.crash import workers
from tests.crash.world_file import WorldFile

ROUNDS = int(os.environ.get("AINFINITY_ROUNDS", "20"))
ANN = Actor("local:ann")
#: How long a worker may take to come to its step before it is killed where it is, and how long the last one may work.
TO_STEP, TO_END = 2.5, 120.0


@dataclass
class Field:
    """A store, people who submit and cancel, and workers that die."""

    folder: Path
    dice: random.Random
    submitted: list[str] = field(default_factory=list[str])
    kills: Counter[str] = field(default_factory=Counter[str])

    def __post_init__(self) -> None:
        (self.folder / "chats.jsonl").write_text(
            json.dumps({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}) + "\n"
        )
        self.store = open_store(workers.settings_for(self.folder))
        self.service = TrainingService(self.store)

    def submit(self) -> None:
        number = len(self.submitted)
        spec = JobSpec.model_validate(
            {
                "name": f"job-{number}",
                "recipe": {"model": "m", "data": str(self.folder / "chats.jsonl")},
                "policy": {"retries": number % 2, "recover": "auto" if number % 3 else "never"},
            }
        )
        self.submitted.append(self.service.launch_job(spec, f"key-{number}", ANN).id)

    def cancel_one(self) -> None:
        live = self.service.list_jobs(JobQuery(states=tuple(map(str, JOB_LIVE)), limit=None))
        if live:
            try:
                self.service.stop_job(self.dice.choice(live).id, ANN)
            except WrongState:
                return  # it ended between the look and the wish

    def kill_at(self, step: str, *, careless: bool = False) -> None:
        """Run a worker until it dies at its step, or kill it at a random moment where no step is given."""
        process = workers.start(
            self.folder,
            step=step or "never",
            hit=self.dice.randint(1, 3),
            careless=careless,
            seed=self.dice.randrange(1 << 30),
        )
        process.join(TO_STEP if step else self.dice.uniform(0.02, 1.2))
        self.kills[step if not process.is_alive() else "a random moment"] += 1
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the worker ended by itself"

    def finish(self) -> None:
        """Let an undisturbed worker do the rest."""
        give_up = time.monotonic() + TO_END
        while time.monotonic() < give_up:
            process = workers.start(self.folder)
            process.join(TO_END)
            assert process.exitcode == 0
            if not self.service.list_jobs(JobQuery(states=tuple(map(str, JOB_LIVE)))):
                return
            time.sleep(0.2)  # the lease of the one that was killed last has yet to run out
        pytest.fail("jobs are still live")


@pytest.fixture
def field_(tmp_path: Path) -> Iterator[Field]:
    made = Field(tmp_path, random.Random(7))
    yield made
    made.store.close()


def check_nothing_lost(field_: Field) -> None:
    with field_.store.read() as connection:
        for job_id in field_.submitted:
            history = events.read(connection, job_id, limit=1_000_000)
            job, attempts = fold(job_id, history)
            assert job.state in JOB_TERMINAL, f"{job_id} is lost in {job.state}"
            assert job == fold_of(connection, job_id)
            assert all(attempts[n] == events.get_attempt(connection, job_id, n) for n in attempts)


def twice(field_: Field) -> dict[str, int]:
    with WorldFile(field_.folder / "world.json").open() as world:
        return {name: count for name, count in world.launches.items() if count > 1}


def check_nothing_runs(field_: Field) -> None:
    with WorldFile(field_.folder / "world.json").open() as world:
        assert world.running(time.time()) == set()


def check_one_machine_a_job(field_: Field) -> None:
    """A job's attempts never ran at the same time: the later began when the earlier was over."""
    with WorldFile(field_.folder / "world.json").open() as world:
        for job_id in field_.submitted:
            lives = sorted(
                (machine.begins, machine.stopped if machine.lingers and machine.stopped else machine.over)
                for name, copies in world.machines.items()
                if f"-{job_id}-" in name
                for machine in copies
            )
            assert all(earlier[1] <= later[0] for earlier, later in pairwise(lives)), job_id


def check_told_once(field_: Field) -> None:
    told = [json.loads(line)["seq"] for line in (field_.folder / "notices.jsonl").read_text().splitlines()]
    table = core("event")
    with field_.store.read() as connection:
        ends = connection.scalars(sa.select(table.c.seq).where(table.c.type.in_(map(str, TERMINAL_EVENTS)))).all()
    assert sorted(told) == sorted(ends)


def test_nothing_is_lost_launched_twice_or_left_running(field_: Field, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(ROUNDS):
        for _ in range(2):
            field_.submit()
        if number % 2:
            field_.cancel_one()
        field_.kill_at(workers.STEPS[number // 2 % len(workers.STEPS)] if number % 2 == 0 else "")
    field_.finish()
    with capsys.disabled():
        print(f"\n{ROUNDS} rounds of kill -9 over {len(field_.submitted)} jobs: {dict(field_.kills)}")
    check_nothing_lost(field_)
    assert twice(field_) == {}
    check_nothing_runs(field_)
    check_one_machine_a_job(field_)
    check_told_once(field_)


@pytest.mark.parametrize("step", workers.STEPS)
def test_a_kill_at_this_step(field_: Field, step: str) -> None:
    """Each step by itself, so that its name stands in the list of tests; and it is really reached."""
    for _ in range(12):  # a try may miss it: the job that was to be cancelled may have ended, or not begun
        for _ in range(3):
            field_.submit()
        field_.cancel_one()
        field_.kill_at(step)
        if field_.kills[step]:
            break
    field_.finish()
    assert field_.kills[step], "no worker came to this step"
    check_nothing_lost(field_)
    assert twice(field_) == {}
    check_nothing_runs(field_)
    check_told_once(field_)


def test_without_intent_and_adoption_jobs_are_launched_twice(field_: Field) -> None:
    """The negative control: the same kills over an engine that trusts nothing it finds."""
    for _ in range(max(6, ROUNDS // 10)):
        for _ in range(3):
            field_.submit()
        field_.kill_at("launch:called", careless=True)
        time.sleep(0.3)
    assert twice(field_), "the test cannot see a duplicate"

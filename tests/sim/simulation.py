"""One schedule: some jobs, people, two workers and a bad day, all drawn from one seed, and then a calm end."""

from __future__ import annotations

import logging
import random
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ainfinity.compute.fake import FakeCompute, World
from ainfinity.compute.port import LaunchRequest
from ainfinity.core.config import Settings
from ainfinity.core.exceptions import AinfinityError, DatabaseLocked, LeaseLost
from ainfinity.domain.decide import Call
from ainfinity.engine.fence import Fence
from ainfinity.engine.launch import attempt_name
from ainfinity.engine.outbox import Outbox
from ainfinity.engine.reconciler import Reconciler
from ainfinity.schema.actor import Actor
from ainfinity.schema.states import ATTEMPT_LIVE, JOB_TERMINAL, JobState
from ainfinity.schema.training_job import JobSpec
from ainfinity.services.training_service import TrainingService
from ainfinity.store import outbox
from ainfinity.store.store import Store
from tests.sim.day import CALM, bad_day, draw_spec
from tests.sim.invariants import Broken, Witness, check
from tests.sim.machinery import INSTALLATION, Chance, Crash, SimCompute, SimDatabase, SimNotifier, WorldClock

_ON_MACHINES = ("extend", "extend", "extend", "keep", "teardown")
PERSON = Actor("local:ann")
PLACES = (("file",), ("file",), ("file", "command"))
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"


@dataclass(frozen=True)
class Switches:
    """What a negative control turns off: each must make the invariants break."""

    grace: bool = True
    intent: bool = True
    look_back: bool = True
    fence: bool = True
    deadline: bool = True
    budget: bool = True
    stay: bool = True


class Ground:
    """What schedules share: one database file on the fastest disk there is, emptied before each, and a data file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = SimDatabase(folder / "sim.db", Chance(0))
        self.data = folder / "data.jsonl"
        row = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
        self.data.write_text(row)


@contextmanager
def memory_folder() -> Generator[Path]:
    """A folder of a while, in memory where the system has a memory disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="ainfinity-sim-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@contextmanager
def ground(parent: Path | None = None) -> Generator[Ground]:
    """A place to play schedules on, in a folder of its own."""
    with ExitStack() as stack:
        logging.disable(logging.CRITICAL)
        stack.callback(logging.disable, logging.NOTSET)
        made = Ground(Path(tempfile.mkdtemp(dir=parent or stack.enter_context(memory_folder()))))
        stack.callback(made.database.close)
        yield made


class SimWorker:
    """A worker process: it comes up, takes the lease if it can, does rounds, and can be killed at any moment."""

    def __init__(self, name: str, sim: Simulation) -> None:
        self.name = name
        self.sim = sim
        self.lives = 0
        self.fence: Fence | None = None
        self.compute = SimCompute(sim.backend, sim.chance)

    def round(self) -> None:
        """Do what `Worker` does between two waits."""
        chance = self.sim.chance
        before, chance.actor = chance.actor, self.name
        try:
            self._round()
        except Crash:
            self.fence = None
        except LeaseLost as error:
            chance.log(f"lost the lease: {error}")
            chance.happened["lease lost"] += 1
            self.fence = None
        except DatabaseLocked:
            pass
        finally:
            chance.actor = before

    def kill(self) -> None:
        if self.fence is not None:
            self.sim.chance.log(f"{self.name} is killed between rounds")
        self.fence = None

    def _round(self) -> None:
        sim = self.sim
        if self.fence is None:
            self.lives += 1
            fence = Fence(sim.store, f"{self.name}{self.lives}", ttl=sim.settings.lease, renew_after=sim.settings.renew)
            if not fence.acquire():
                sim.chance.time += sim.dice.choice([0.0, 9.0, 11.0])
                return
            sim.chance.log(f"takes the lease, epoch {fence.epoch}")
            self.fence = fence
            self.engine = Reconciler(fence, {"fake": self.compute}, sim.settings, lambda owner, names: {})
            self.outbox = Outbox(fence, sim.notifiers, lambda step: None)
            sim.sabotage(self)
        self.fence.must_hold()
        self.compute.calls.clear()
        self.engine.tick()
        looks = self.compute.calls["observe_all"]
        check(looks == 1, f"{looks} looks at the backend in one tick")
        self.outbox.run()
        if not self.engine.view.jobs and sim.chance.dice.random() < 0.3 and self.fence.release_if_idle():
            self.fence = None


class Simulation:
    """One schedule on a ground."""

    def __init__(self, ground: Ground, seed: int, switches: Switches | None = None) -> None:
        self.seed = seed
        self.switches = switches or Switches()
        self.chance = chance = Chance(f"schedule/{seed}")
        dice = self.dice = chance.dice
        self.ground = ground
        self.database = ground.database
        self.database.begin(chance)
        lag = dice.choice([0.0, 3.0, 10.0])
        self.settings = Settings(
            data_dir=ground.folder,
            config_dir=ground.folder,
            grace=10.0,
            lease=10.0,
            renew=3.0,
            # Short, for days that are over in minutes.
            default_deadline=dice.choice([30.0, 400.0]),
            keep_unfetched=40.0,
            stop_grace=5.0,
        )
        self.weather = bad_day(dice, lag)
        self.capacity = dice.choice([None, 1, 2, 4])
        self.world = World()
        self.backend = FakeCompute(
            self.world, WorldClock(chance), seed=seed, weather=self.weather, lag=lag, slots=self.capacity
        )
        places = dice.choice(PLACES)
        self.notifiers = {place: SimNotifier(chance) for place in places}
        self.store = Store(self.database, chance, None, places)
        self.service = TrainingService(self.store, backends=("fake",), new_id=self._new_id)
        self.witness = Witness(self.world, self.notifiers, self.capacity, self.switches.intent, self.settings)
        self.workers = [SimWorker("A", self), SimWorker("B", self)]
        self.submitted: list[tuple[JobSpec, str]] = []
        self.silent: set[str] = set()
        self.seen = -1
        chance.pause = self._meanwhile
        self._trouble(dice)

    def _trouble(self, dice: random.Random) -> None:
        self.chance.crash = dice.choice([0.0, 0.0, 0.005, 0.03])
        self.chance.hang = dice.choice([0.0, 0.0, 0.02, 0.1])
        self.chance.slow = dice.choice([0.0, 0.0, 0.05, 0.3])
        self.database.locked = dice.choice([0.0, 0.05])
        for notifier in self.notifiers.values():
            notifier.fail = dice.choice([0.0, 0.2])
            notifier.looks_back = self.switches.look_back

    def sabotage(self, worker: SimWorker) -> None:
        """Turn off what a negative control wants turned off."""
        if not self.switches.grace:
            _change_rules(worker, grace=0.0)
        if not self.switches.deadline:
            _change_rules(worker, deadline_margin=1e9)
        if not self.switches.budget:
            _change_rules(worker, max_cost=None)
        if not self.switches.stay:
            _change_rules(worker, keep_unfetched=1e9)
        if not self.switches.intent:
            worker.engine.recorder._append = partial(_call_first, worker, worker.engine.recorder._append)
            worker.engine.caller.launch = lambda *_: None
        if not self.switches.fence:
            worker.fence.must_hold = lambda: None
            worker.fence.must_still_hold = lambda: None

    def _new_id(self) -> str:
        return "".join(self.dice.choice(_LETTERS) for _ in range(10))

    def run(self) -> None:
        """Play the schedule. Errors: Broken, and whatever else the engine must not raise."""
        for _ in range(self.dice.randint(10, 25)):
            self.step()
            self.look()
        self.calm_down()
        self.in_the_end()

    def look(self) -> None:
        """Check what must hold at any moment, in the truth and, where something was written, in the database."""
        if self.seen == self.database.commits:
            self.witness.look_at_the_truth(self.chance.time)
            return
        self.seen = self.database.commits
        with self.database.engine.connect() as connection, connection.begin():
            self.witness.look(connection, self.chance.time)

    def step(self) -> None:
        dice = self.dice.random()
        if dice < 0.62:
            self.workers[self.dice.random() < 0.25].round()
            self.chance.time += self.dice.choice([0.1, 1.0, 1.0, 2.0, 4.0])
        elif dice < 0.90:
            self.act()
        elif dice < 0.94:
            self.dice.choice(self.workers).kill()
        elif dice < 0.97:
            self.world.outage = self.chance.time + self.dice.uniform(1.0, 25.0)
            self.chance.log("the backend goes dark")
        else:
            self.chance.time += self.dice.uniform(5.0, 40.0)

    def _meanwhile(self) -> None:
        """What goes on while a worker is paused: time above all, so that its lease runs out or nearly."""
        for _ in range(self.dice.randint(1, 4)):
            self.chance.time += self.dice.choice([0.5, 3.0, 9.5, 12.0])
            self.look()
            if self.dice.random() < 0.6:
                self.dice.choice([one for one in self.workers if one.name != self.chance.paused]).round()
            else:
                self.act()

    def act(self) -> None:
        """Let a person do something; half the wishes are impossible by now, and refused."""
        verb = self.dice.choice(
            ["submit", "submit", "submit", "again", "approve", "reject", "cancel", "cancel", "retry", *_ON_MACHINES]
        )
        self.chance.actor = ""
        try:
            if verb == "submit":
                self._submit()
            elif self.submitted:
                self._wish(verb, *self._pick(verb))
        except AinfinityError as error:
            self.chance.log(f"{verb}: {error.code}")

    def _pick(self, verb: str) -> tuple[JobSpec, str]:
        """A job to do something with; a machine that is kept draws people's eyes."""
        waiting = (
            {row.name for row in self.service.list_jobs() if self._waits(row.id)} if verb in _ON_MACHINES else set()
        )
        kept = [pair for pair in self.submitted if pair[0].name in waiting]
        return self.dice.choice(kept or self.submitted)

    def _waits(self, job_id: str) -> bool:
        attempts = [one for one in self.witness.attempts.values() if one.job_id == job_id]
        return any(one.fetching_since is not None and one.state in ATTEMPT_LIVE for one in attempts) or (
            job_id in self.witness.jobs and self.witness.jobs[job_id].kept_until is not None
        )

    def _submit(self) -> None:
        dice = self.dice
        spec = draw_spec(str(self.ground.data), f"job-{len(self.submitted)}", dice)
        key = f"key-{len(self.submitted)}"
        self.submitted.append((spec, key))
        row = self.service.launch_job(spec, key, PERSON)
        self.witness.policies[row.id] = spec.policy
        if spec.policy.notify == "none":
            self.silent.add(row.id)
        self.chance.log(f"submits {row.id} {spec.name} {spec.policy}")

    def _wish(self, verb: str, spec: JobSpec, key: str) -> None:
        self.chance.log(f"{verb} {spec.name}")
        if verb == "again":
            before = len(self.service.list_jobs())
            self.service.launch_job(spec, key, PERSON)
            check(len(self.service.list_jobs()) == before, "the same key made another job")
            return
        verbs: dict[str, Callable[[], Any]] = {
            "approve": lambda: self.service.approve_job(spec.name, PERSON),
            "reject": lambda: self.service.reject_job(spec.name, PERSON, "too dear"),
            "cancel": lambda: self.service.stop_job(spec.name, PERSON),
            "retry": lambda: self.service.retry_job(spec.name, PERSON),
            "extend": lambda: self.service.extend_job(spec.name, self.dice.choice([5.0, 60.0]), PERSON),
            "keep": lambda: self.service.keep_job(spec.name, self.dice.choice([5.0, 60.0]), PERSON),
            "teardown": lambda: self.service.teardown_job(spec.name, PERSON),
        }
        verbs[verb]()

    def calm_down(self) -> None:
        """Let nothing fail any more, and decide what waits for a person."""
        self.chance.log("calm")
        self.witness.calm_since = self.chance.time
        self.chance.crash = self.chance.hang = self.chance.slow = self.database.locked = self.world.outage = 0.0
        for notifier in self.notifiers.values():
            notifier.fail = 0.0
        self.backend.weather = replace(CALM, run=self.weather.run, setup=self.weather.setup)
        for row in self.service.list_jobs():
            if row.state == JobState.AWAITING_APPROVAL:
                self._wish(self.dice.choice(["approve", "reject", "cancel"]), *self._of(row.name))

    def _of(self, name: str) -> tuple[JobSpec, str]:
        return next(pair for pair in self.submitted if pair[0].name == name)

    def in_the_end(self) -> None:
        """Go on until all is done, with one worker, and not for ever."""
        worker = next((one for one in self.workers if one.fence is not None), self.workers[0])
        for _ in range(150):
            before = self.database.commits
            worker.round()
            idle = self.database.commits - before <= 1  # at most a renewal of the lease
            self.look()
            self.chance.time += 9.0 if idle else 3.0
            if all(job.state in JOB_TERMINAL for job in self.witness.jobs.values()):
                break
        # Claims of dead workers run out, what is over is released, and what could not be told is told later.
        for seconds in (61.0, 61.0, 300.0, 1000.0, 3600.0):
            self.chance.time += seconds
            worker.kill()  # its lease has run out anyway
            worker.round()
            with self.database.read() as connection:
                if not outbox.owed(connection):
                    break
        with self.database.engine.connect() as connection, connection.begin():
            self.witness.in_the_end(connection, self.chance.time, self.silent)


def _change_rules(worker: SimWorker, **changes: Any) -> None:
    rules_for = worker.engine.rules.rules_for
    worker.engine.rules.rules_for = lambda spec, job, lag: replace(rules_for(spec, job, lag), **changes)


def _call_first(worker: SimWorker, append: Callable[..., None], connection: Any, batch: Any, backend: str) -> None:
    """Launch before the intent is recorded, as one does who thinks of crashes later: one in between forgets it."""
    for job, decision in batch:
        if decision.call == Call.LAUNCH:
            number = decision.attempt
            request = LaunchRequest(
                attempt_name(INSTALLATION, job.job.id, number), job.job.id, number, {}, "", "", slots=job.slots
            )
            try:
                worker.compute.launch(request)
            except AinfinityError as error:
                raise DatabaseLocked("Nothing is recorded of a launch that got no answer.") from error
    append(connection, batch, backend)


@dataclass(frozen=True)
class Outcome:
    """How a schedule went: what broke ("" for nothing), the trace, and how often what happened."""

    seed: int
    broke: str
    trace: list[str]
    happened: Counter[str]


def play(place: Ground, seed: int, switches: Switches | None = None) -> Outcome:
    """Play one schedule."""
    simulation = Simulation(place, seed, switches)
    broke = ""
    try:
        simulation.run()
    except Exception as error:
        # Whatever the engine raises breaks a promise too: only what the worker handles may come out of it.
        broke = str(error) if isinstance(error, Broken) else traceback.format_exc()
    happened = simulation.chance.happened + Counter(str(event.type) for event in simulation.witness.history)
    return Outcome(seed, broke, simulation.chance.trace, happened)

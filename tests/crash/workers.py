"""Real worker processes over a backend that lags and loses replies; they die by `kill -9` where they are told to."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
from pathlib import Path

from ainfinity.compute.fake import FakeCompute, Weather
from ainfinity.core.clock import SystemClock
from ainfinity.core.config import Settings
from ainfinity.domain.decide import Call, Decision, Rules, Seen, decide
from ainfinity.domain.fold import AttemptFold, JobFold
from ainfinity.engine import reconciler
from ainfinity.engine.outbox import FileNotifier
from ainfinity.schema.event import EventType
from ainfinity.schema.states import AttemptState, Desired
from ainfinity.store.store import open_store
from ainfinity.worker import Worker
from tests.crash.world_file import WorldFile

#: Every named step at which a worker can be killed; together they are launch, observe, cancel, intake and outbox.
STEPS = (
    "launch:intended", "launch:called", "launch:recorded", "observe:seen", "observe:recorded", "cancel:stopping",
    "cancel:called", "cancel:confirmed", "ingest:read", "ingest:recorded", "outbox:told", "outbox:settled",
)  # fmt: skip

#: How late the backend's list is, in seconds. The grace is longer, as it must be.
LAG = 0.15
WEATHER = Weather(
    timeout=0.02, launch_reply_lost=0.1, launch_lost=0.05, stop_lost=0.1, stop_reply_lost=0.1, stale=0.1, late=0.5,
    fail=0.1, vanish=0.05, preempted=0.05, recover=0.1, linger=0.3, stubborn=0.3, forgotten=0.2, short_read=0.2,
    setup=(0.02, 0.1), run=(0.1, 0.8), stop=(0.0, 0.1),
)  # fmt: skip

#: Forked from a process that has everything imported: a worker starts in milliseconds, and is a process all the same.
_FORK = multiprocessing.get_context("forkserver")
_FORK.set_forkserver_preload([__name__])


def settings_for(folder: Path) -> Settings:
    """Short times, so that a round takes a second."""
    return Settings(
        data_dir=folder, config_dir=folder / "config", lease=0.6, renew=0.2, tick=0.03, grace=0.4, busy_timeout=20.0
    )


def start(folder: Path, *, step: str = "", hit: int = 1, careless: bool = False, seed: int = 0) -> Process:
    """Start a worker that kills itself at the `hit`-th passing of `step`, or works until nothing is live."""
    process = _FORK.Process(target=_work, args=(folder, step, hit, careless, seed))
    process.start()
    return process


Process = multiprocessing.process.BaseProcess


def _work(folder: Path, step: str, hit: int, careless: bool, seed: int) -> None:
    settings = settings_for(folder)
    clock = SystemClock()
    world = WorldFile(folder / "world.json")
    compute = FakeCompute(world, clock, seed=f"{seed}/{os.getpid()}", weather=WEATHER, lag=LAG)
    passed = 0

    def probe(name: str) -> None:
        nonlocal passed
        passed += name == step
        if passed == hit:
            os.kill(os.getpid(), signal.SIGKILL)

    if careless:
        reconciler.decide = decide_without_intent_and_adoption
    notifier = FileNotifier(settings.data_dir / "notices.jsonl")
    worker = Worker(
        open_store(settings, clock),
        settings,
        {"local": compute},
        lambda owner, names: {},
        {"file": notifier},
        probe=probe,
        linger=0.1,
    )
    worker.run(until_idle=not step)


def decide_without_intent_and_adoption(job: JobFold, attempt: AttemptFold | None, seen: Seen, rules: Rules) -> Decision:
    """The negative control: an attempt without a handle is launched again at once, whatever the backend lists."""
    if attempt is not None and attempt.state == AttemptState.INTENDED and job.desired == Desired.RUN:
        return Decision(((EventType.ATTEMPT_INTENDED, {}),), Call.LAUNCH, attempt.number)
    return decide(job, attempt, seen, dataclasses.replace(rules, grace=0.0))

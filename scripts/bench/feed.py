"""From a commit in one process to its event in the feed of another, and what an idle feed costs."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from ainfinity.core.config import load_settings
from ainfinity.schema.event import Event, EventType
from ainfinity.store import events
from ainfinity.store.store import open_store
from scripts.bench.commands import environment
from scripts.bench.measure import Figure, at_most, percentile, thread_cpu
from scripts.bench.seed import NOW, make_store

ROOT = Path(__file__).parents[2]


async def watch() -> None:
    """Be the other process: print the number of each event and when it was seen, as the feed brings it."""
    from ainfinity.client.connect import open_client

    client = await open_client(load_settings(), start_workers=False)
    print("ready", flush=True)
    async for item in client.feed():
        now = time.monotonic()
        for event in item.events:
            print(json.dumps([event.seq, now]), flush=True)


def measure(folder: Path, commits: int = 400, idle: float = 10.0) -> list[Figure]:
    """p50 and p99 over single commits at random distances."""
    data = folder / "feed"
    make_store(data / "ainfinity.db", 1000).close()
    argv = [sys.executable, "-m", "scripts.bench.feed"]
    env = environment(data, ROOT)
    child = subprocess.Popen(argv, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    with child:
        try:
            assert child.stdout is not None
            if child.stdout.readline() != "ready\n":
                raise RuntimeError("the watching process did not start")
            time.sleep(2)
            before = thread_cpu(child.pid)
            time.sleep(idle)
            share = 100 * (thread_cpu(child.pid) - before) / idle
            committed = _commit(data, commits)
            seen = dict(json.loads(child.stdout.readline()) for _ in range(commits))
        finally:
            child.kill()
    waits = [1000 * (seen[seq] - at) for seq, at in committed.items()]
    pipe = _wake_ups(commits)
    return [
        at_most("commit to event in another process, p50", percentile(waits, 0.5), "ms", 15),
        at_most("commit to event in another process, p99", percentile(waits, 0.99), "ms", 15),
        at_most("waking a thread through a socket, p99 (what the machine adds)", percentile(pipe, 0.99), "ms", 15),
        at_most("idle feed", share, "% CPU", 0.5),
    ]


def _commit(data: Path, commits: int) -> dict[int, float]:
    """Commit single events as the worker does; return when each commit began, by its number."""
    chance = random.Random(11)
    store = open_store(load_settings({}, data_dir=data, config_dir=data / "config"))
    with store.read() as connection:
        job = events.read(connection, limit=1)[0].job_id
    event = Event(EventType.TRAINER_WARNING, job, NOW, "engine", 1, {"code": "bench", "message": "x"})
    committed: dict[int, float] = {}
    for _ in range(commits):
        time.sleep(chance.uniform(0.005, 0.03))
        with store.write() as connection:
            (stored,) = events.append(connection, [event])
            began = time.monotonic()
        committed[stored.seq] = began
    store.close()
    return committed


def _wake_ups(times: int) -> list[float]:
    """Milliseconds until a thread that waits on a socket notices a byte: the floor on this machine at this moment."""
    here, there = socket.socketpair()
    taken: list[float] = []
    answered = threading.Event()

    def answer() -> None:
        while there.recv(8):
            taken.append(1000 * (time.monotonic() - began))
            answered.set()

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    for _ in range(times):
        time.sleep(0.005)
        answered.clear()
        began = time.monotonic()
        here.send(b"x")
        answered.wait(10)
    here.close()
    thread.join(10)
    there.close()
    return taken


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    asyncio.run(watch())

"""The worker: the process that carries wishes out. Composition root of engine, compute and store.

`python -m ainfinity.worker --until-idle` is started, detached, by any front that finds live jobs and no live lease. It
outlives the front. Killed at any moment, the next one goes on from what is recorded and from what it finds running.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec

from ainfinity.compute.local import LocalCompute
from ainfinity.compute.port import Compute
from ainfinity.core.config import Settings, load_settings
from ainfinity.core.constants import EXIT_OK, EXIT_UNREACHABLE
from ainfinity.core.exceptions import AinfinityError, DatabaseLocked, DatabaseNewer, FolderUnwritable, LeaseLost
from ainfinity.core.logging import configure_logging
from ainfinity.core.secrets import SecretStore, open_secrets
from ainfinity.domain.places import backend_of
from ainfinity.engine.fence import Fence
from ainfinity.engine.launch import SecretSource
from ainfinity.engine.outbox import CommandNotifier, FileNotifier, Notifier, Outbox
from ainfinity.engine.reconciler import Probe, Reconciler, no_probe
from ainfinity.engine.verify import BackgroundVerifier
from ainfinity.store import jobs, orphans
from ainfinity.store.doorbell import Listener
from ainfinity.store.store import Store, open_store

_log = logging.getLogger(__name__)

#: The worker's own writes ring the bell too; ticks keep this distance, in seconds.
_BREATH = 0.02
#: How long a worker without work waits before it goes, so that a next job finds it warm.
_LINGER = 2.0


class Worker:
    """Holds the lease and ticks until told to stop or, with `until_idle`, until nothing is live."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        computes: Mapping[str, Compute],
        secret_source: SecretSource,
        notifiers: Mapping[str, Notifier],
        *,
        probe: Probe = no_probe,
        linger: float = _LINGER,
    ) -> None:
        self.store = store
        self.settings = settings
        self.computes = computes
        self.secret_source = secret_source
        self.notifiers = notifiers
        self.probe = probe
        self.linger = linger
        self.stopping = False

    def run(self, *, until_idle: bool) -> int:
        """Work and return an exit code. Only one worker acts at a time; a second one leaves, or waits its turn."""
        with Listener(self.store.database.path) as listener:
            while not self.stopping:
                fence = self._fence()
                if not self._guarded(fence.acquire, otherwise=False):
                    if until_idle:
                        _log.info("another worker is at work")
                        return EXIT_OK
                    listener.wait(self.settings.renew)
                    continue
                _log.info("lease taken, epoch %d", fence.epoch)
                try:
                    if self._hold(fence, listener, until_idle=until_idle):
                        return EXIT_OK
                except LeaseLost as error:
                    _log.warning("lease lost: %s", error)
                except DatabaseNewer as error:
                    _log.warning("leaving the jobs to a newer worker: %s", error)
                    return EXIT_UNREACHABLE
        return EXIT_OK

    def _fence(self) -> Fence:
        holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        info = metadata.version("ainfinity")
        return Fence(self.store, holder, ttl=self.settings.lease, renew_after=self.settings.renew, info=info)

    def _hold(self, fence: Fence, listener: Listener, *, until_idle: bool) -> bool:
        """Tick for as long as the lease is ours; return True when the work is over."""
        verifier = BackgroundVerifier(self.store.bell.ring)
        engine = Reconciler(fence, self.computes, self.settings, self.secret_source, self.probe, verifier)
        outbox = Outbox(fence, self.notifiers, self.probe)
        idle_since: float | None = None
        while True:
            if self.stopping:
                outbox.close()
                fence.release()
                return True
            busy = self._guarded(lambda: self._round(fence, engine, outbox), otherwise=True)
            now = time.monotonic()
            idle_since = None if busy else (idle_since or now)
            if until_idle and idle_since is not None and now - idle_since >= self.linger:
                if self._guarded(fence.release_if_idle, otherwise=False):
                    _log.info("nothing is live; going")
                    return True
                idle_since = None
            listener.wait(min(self.settings.tick, self.linger) if until_idle and not busy else self.settings.tick)
            time.sleep(_BREATH)

    def _round(self, fence: Fence, engine: Reconciler, outbox: Outbox) -> bool:
        fence.must_hold()
        engine.tick()
        outbox.run()
        return bool(engine.view.jobs)

    def _guarded(self, work: Callable[[], bool], *, otherwise: bool) -> bool:
        """Run a piece of work; a locked database or a full disk is waited out, for nothing is lost by it."""
        try:
            return work()
        except (DatabaseLocked, FolderUnwritable) as error:
            _log.warning("trying again: %s", error)
            return otherwise

    def stop(self) -> None:
        """End after the round at hand. Attempts run on."""
        self.stopping = True


def computes(settings: Settings, store: Store) -> dict[str, Compute]:
    """Return the backends of this installation. SkyPilot itself is loaded only once a job needs it."""
    found: dict[str, Compute] = {"local": LocalCompute(settings)}
    if find_spec("sky") is not None:
        from ainfinity.compute.remote.bringing import RemoteTransfer
        from ainfinity.compute.remote.compute import SkyPilotCompute
        from ainfinity.compute.remote.follower import Followers
        from ainfinity.compute.skypilot import SkyPilot

        def needed() -> bool:
            with store.read() as connection:
                live = any(backend_of(infra) == SkyPilotCompute.name for infra in jobs.live_infras(connection))
                return live or bool(orphans.open_count(connection))

        def adopted() -> Sequence[str]:
            with store.read() as connection:
                return orphans.adopted_names(connection)

        sky = SkyPilot()
        followers = Followers(sky, settings.attempts_dir)
        transfer = RemoteTransfer(settings.attempts_dir, settings.jobs_dir, settings.data_dir / "ssh", sky.ssh_config)
        found["skypilot"] = SkyPilotCompute(settings, None, sky, followers, transfer, needed, adopted)
    return found


def secret_source(settings: Settings) -> SecretSource:
    """Return where the worker finds the values of secrets."""
    stored = open_secrets(settings)

    def find(owner: str, names: Sequence[str]) -> Mapping[str, str]:
        return stored.resolve(names)

    return find


def notifiers(settings: Settings) -> dict[str, Notifier]:
    """Return the places that the engine itself tells notices to."""
    found: dict[str, Notifier] = {"file": FileNotifier(settings.data_dir / "notices.jsonl")}
    if settings.notify_command:
        found["command"] = CommandNotifier(settings.notify_command)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker with the settings of the environment and return its exit code."""
    parser = argparse.ArgumentParser(prog="ainfinity worker run", description="Carry out what is wanted of jobs.")
    parser.add_argument("--until-idle", action="store_true", help="end when no job is live")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings()
        configure_logging(settings.log_level, file=settings.data_dir / "worker.log")
        SecretStore(settings.config_dir).learn_all()  # attempts run that an earlier worker gave its secrets
        store = open_store(settings)
        worker = Worker(store, settings, computes(settings, store), secret_source(settings), notifiers(settings))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, frame: worker.stop())
        return worker.run(until_idle=options.until_idle)
    except AinfinityError as error:
        _log.error("%s", error)  # a cause that the message names needs no traceback
        print(f"ainfinity worker: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())

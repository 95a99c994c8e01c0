"""Waiting for what is to be seen of an attempt."""

from __future__ import annotations

from collections.abc import Callable

from ainfinity.compute.remote.compute import SkyPilotCompute
from ainfinity.domain.observation import Observation, Phase
from tests.compute.remote.place import RemotePlace

NAME = "ain-0a1b2c3d-abcdefghij-a1"
OTHER = "ain-0a1b2c3d-abcdefghij-a2"


def see(
    place: RemotePlace, compute: SkyPilotCompute, fits: Callable[[Observation], bool], name: str = NAME
) -> Observation:
    """Look, a little later each time, until what is seen fits; the clock's hours bound it."""
    for _ in range(2000):
        seen = compute.observe_all().get(name)
        if seen is not None and fits(seen):
            return seen
        place.clock.at += 0.25
    raise AssertionError(f"never seen; last: {compute.observe_all().get(name)}")


def running(seen: Observation) -> bool:
    return seen.phase == Phase.RUNNING


def ended(seen: Observation) -> bool:
    return seen.phase in (Phase.EXITED, Phase.VANISHED)


def gone(seen: Observation) -> bool:
    return not seen.machine


class Crash(BaseException):
    """The worker is killed with -9."""


def crash() -> None:
    raise Crash

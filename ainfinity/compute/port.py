"""The contract of a compute backend. One contract suite runs over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ainfinity.domain.observation import Observation


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """All that a backend needs to start one attempt.

    `name` is the attempt's deterministic name and its key: launching the same name twice never runs two copies as far
    as the backend can help it. `secrets` are values, for the process's environment only: never written anywhere.
    `output_dir` and `checkpoint_dir` outlive the attempt; a later attempt of the job gets the same.
    """

    name: str
    job_id: str
    attempt: int
    recipe: Mapping[str, Any]
    output_dir: str
    checkpoint_dir: str
    slots: int = 1
    ranks: int = 1
    nodes: int = 1
    gpus: int = 0
    python: str = ""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    secrets: Mapping[str, str] = field(default_factory=dict[str, str])
    #: Unix seconds at which the run wrapper ends the attempt by itself; None means no limit.
    deadline: float | None = None
    resume_step: int | None = None
    #: The whole `JobSpec` as JSON, for backends that render a task of their own from it.
    spec: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Lines:
    """New complete output lines of one attempt, and the byte offset after the last of them."""

    lines: Sequence[str]
    offset: int


class Compute(Protocol):
    """A place where attempts run.

    Every method but `launch` is safe to repeat. Any of them raises `ComputeUnreachable` when the backend does not
    answer, which says nothing about the attempts. None of them blocks for as long as an attempt takes.

    With `remote`, the engine makes all calls but `read_lines` on threads, several at once but never two about the same
    attempt; `read_lines` must answer at once, from what was fetched before.
    """

    #: The name that specs and rows use, for example `local`.
    name: str
    #: How long after a launch call the attempt may still be missing from `observe_all`, in seconds.
    lag: float
    #: Whether its calls cross a network and may take long.
    remote: bool

    def capacity(self) -> int | None:
        """Return how many slots there are in all, or None where the backend queues by itself."""
        ...

    def observe_all(self) -> Mapping[str, Observation]:
        """Return what is known of every attempt of this installation that is not released, by name, in one request."""
        ...

    def launch(self, request: LaunchRequest) -> str:
        """Start the attempt, or find it started, and return its handle.

        Errors:
            ComputeUnreachable: no answer; the launch may or may not have happened.
            Refused: the backend will never start this; it did not happen.
        """
        ...

    def stop(self, name: str) -> None:
        """Begin, or go on with, ending everything of the attempt. `observe_all` tells when nothing is left."""
        ...

    def read_lines(self, offsets: Mapping[str, int]) -> Mapping[str, Lines]:
        """Return new complete output lines for each named attempt after its byte offset, in one request.

        At most a few MiB an attempt a call; the rest comes with the next call.
        """
        ...

    def verify(self, name: str, files: Sequence[Mapping[str, Any]]) -> str:
        """Check that each `{path, size, sha256}` lies durable where it should; return "" or what is wrong."""
        ...

    def extend(self, name: str, deadline: float | None) -> None:
        """Have the attempt end itself at another time, in Unix seconds; None takes its limit away.

        Errors:
            ComputeUnreachable: it was not told. Refused: it cannot be told any more.
        """
        ...

    def release(self, name: str) -> None:
        """Forget an attempt that is over and whose end is recorded; its log and output stay."""
        ...

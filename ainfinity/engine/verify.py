"""Verifying exports without holding up the tick: hashing a large model takes longer than a lease."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

from ainfinity.compute.port import Compute
from ainfinity.core.exceptions import ComputeUnreachable

#: Bringing one model home over a slow line must not hold up the others.
_AT_ONCE = 4

#: Verify the files of an attempt; "" or what is wrong, None while that is not known yet.
Verifier = Callable[[Compute, str, Sequence[Mapping[str, Any]]], str | None]


def exported_files(finished: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the files of a trainer's `finished` line by full path; there they are relative to its `output`."""
    output, files = finished.get("output"), finished.get("files")
    if not isinstance(output, str) or not isinstance(files, list):
        return []
    entries = cast("list[dict[str, Any]]", [entry for entry in cast("list[Any]", files) if isinstance(entry, dict)])
    return [entry | {"path": os.path.join(output, str(entry.get("path")))} for entry in entries]


def verify_now(compute: Compute, name: str, files: Sequence[Mapping[str, Any]]) -> str | None:
    """Verify at once; for tests and simulations, where order must be fixed."""
    try:
        return compute.verify(name, files)
    except ComputeUnreachable:
        return None


class BackgroundVerifier:
    """Verifies on a few threads; asks again get None until the answer is there, which is given once."""

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        self._thread = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="ainfinity-verify")
        self._running: dict[str, Future[str | None]] = {}
        self._wake = wake

    def __call__(self, compute: Compute, name: str, files: Sequence[Mapping[str, Any]]) -> str | None:
        """Begin to verify, or return the answer if it is there."""
        future = self._running.get(name)
        if future is None:
            future = self._thread.submit(verify_now, compute, name, files)
            self._running[name] = future
            future.add_done_callback(lambda _: self._wake())
        if not future.done():
            return None
        del self._running[name]
        return future.result()

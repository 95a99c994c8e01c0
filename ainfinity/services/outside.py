"""What fronts ask of SkyPilot: answered from files with their age, and else by a short-lived process.

Neither a front nor this service ever loads `sky`: that takes seconds, and a server that hangs would hang it too.
A call may take as long as its question's limit, so callers make it on a thread of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

from ainfinity.core.clock import Clock, SystemClock
from ainfinity.core.exceptions import AinfinityError, ComputeUnreachable, Unreachable
from ainfinity.schema.outside import Answer
from ainfinity.store.answers import AnswerFiles, Kept

#: Answers a question, with its arguments, within so many seconds. Raises AinfinityError.
Runner = Callable[[str, Mapping[str, Any], float], Any]

#: How long an answer may take, in seconds.
LIMIT: Final = 60.0
LIMITS: Final[Mapping[str, float]] = {"ssh": 20.0, "health": 10.0, "start": 120.0}
#: What is never kept: a way into a machine, and what changes something.
_NOT_KEPT: Final = frozenset({"ssh", "start"})
#: A failure this young is not tried anew unless that is wished: many fronts ask, often.
_BACKOFF: Final = 5.0
#: What the process gets beyond its own limit before it is killed.
_SLACK: Final = 10.0


class OutsideService:
    """Questions to the world outside."""

    def __init__(self, cache_dir: Path, clock: Clock | None = None, runner: Runner | None = None) -> None:
        self.files = AnswerFiles(cache_dir / "answers")
        self.clock = clock or SystemClock()
        self.runner = runner or run_ask

    def ask(
        self,
        question: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        max_age: float = 0.0,
        refresh: bool = False,
    ) -> Answer:
        """Return the answer, from the file if it is at most `max_age` seconds old and no `refresh` is wished.

        Where no new answer can be had, the old one is returned with the reason. Many who ask at once cause one process.

        Errors:
            AinfinityError: there is no answer, not even an old one; mostly ComputeUnreachable.
        """
        arguments = arguments or {}
        limit = LIMITS.get(question, LIMIT)
        if question in _NOT_KEPT:
            return Answer(self.runner(question, arguments, limit), self.clock.now())
        begun = self.clock.now()
        kept = self.files.read(question, arguments)
        if kept is not None and not refresh and self._is_enough(kept, max_age, begun):
            return _answer(kept)
        with self.files.asking(question, arguments, limit + _SLACK) as alone:
            # Whoever held us up may have been answered since.
            kept = self.files.read(question, arguments)
            if kept is not None and (kept.done >= begun or (not refresh and self._is_enough(kept, max_age, begun))):
                return _answer(kept)
            if not alone:
                late = ComputeUnreachable("Another process still waits for the same answer.", hint="Try again soon.")
                return _answer(Kept() if kept is None else kept, late)
            return _answer(self._run(question, arguments, limit, kept))

    def _is_enough(self, kept: Kept, max_age: float, now: float) -> bool:
        if kept.error:
            return now - kept.done < _BACKOFF
        return now - kept.at <= max_age

    def _run(self, question: str, arguments: Mapping[str, Any], limit: float, old: Kept | None) -> Kept:
        asked = self.clock.now()
        try:
            value = self.runner(question, arguments, limit)
        except AinfinityError as error:
            before = old or Kept()
            kept = Kept(before.value, before.at, self.clock.now(), error.as_dict())
        else:
            kept = Kept(value, asked, self.clock.now())
        with contextlib.suppress(OSError):  # the answer is good though it cannot be kept
            self.files.write(question, arguments, kept)
        return kept


def _answer(kept: Kept, error: AinfinityError | None = None) -> Answer:
    why = kept.error if error is None else error.as_dict()
    if why and not kept.at:
        raise error_of(why)
    return Answer(kept.value, kept.at, why)


def run_ask(question: str, arguments: Mapping[str, Any], limit: float) -> Any:
    """Answer by `python -m ainfinity.compute.ask`, which ends itself at its limit and is killed soon after it.

    Errors:
        AinfinityError: as the process reports it; Unreachable if it reports nothing.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "ainfinity.compute.ask", question, "--limit", str(limit)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        # The folder that a person happens to be in must not shadow the modules.
        env=os.environ | {"PYTHONSAFEPATH": "1"},
        # Of its own group, so that what it started ends with it; a Ctrl-C in the terminal ends it through us.
        start_new_session=True,
    )
    try:
        out, err = process.communicate(json.dumps(dict(arguments)), timeout=limit + _SLACK)
    except subprocess.TimeoutExpired:
        raise ComputeUnreachable(f"No answer to {question!r} within {limit:.0f} s.", hint="Try again later.") from None
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return _reply(question, out, err)


def _reply(question: str, out: str, err: str) -> Any:
    try:
        found: Any = json.loads(out)
        reply = cast("dict[str, Any]", found)
        error = reply.get("error")
    except (ValueError, AttributeError):
        last = err.strip().splitlines()[-1:] or ["It said nothing."]
        raise Unreachable(f"The process that asks for {question!r} failed: {last[0]}") from None
    if error:
        raise error_of(error)
    return reply.get("value")


def error_of(shown: Mapping[str, str]) -> AinfinityError:
    """Return the exception of an error in the form of `AinfinityError.as_dict`."""
    kind = _kinds(AinfinityError).get(shown.get("code", ""), AinfinityError)
    return kind(shown.get("message", "No answer."), hint=shown.get("hint", ""), field=shown.get("field", ""))


def _kinds(root: type[AinfinityError]) -> dict[str, type[AinfinityError]]:
    """The exceptions by their code; one without a code of its own is told by its parent's."""
    found = {root.code: root} if "code" in vars(root) else {}
    for kind in root.__subclasses__():
        found |= _kinds(kind)
    return found

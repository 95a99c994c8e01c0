"""`make demo`: fine-tune a small language model on this machine, through the real command line, service and worker.

With a terminal it opens the terminal UI on the running job, without one it prints progress. It ends with what was
learned, and exits 0 only if the held-out loss fell by at least `MIN_FALL`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ainfinity.cli.output import harmless
from ainfinity.core.config import load_settings
from ainfinity.core.constants import EXIT_INTERRUPTED, EXIT_OK, EXIT_OTHER, EXIT_REFUSED
from ainfinity.core.exceptions import AinfinityError

RECIPE = "smollm2-135m-docstrings"
NAME = "demo"
#: 0.66 was measured; the same run with lr 0 moves the held-out loss by less than 0.01.
MIN_FALL = 0.5
_COMMAND = str(Path(sys.executable).with_name("ainfinity"))


class DemoFailed(Exception):
    """The demo cannot go on; whatever failed has said why. `code` is its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What a finished demo learned. Losses are held-out, per token; `first_loss_at` is Unix seconds."""

    job: str
    before: float | None
    after: float | None
    question: str
    answer_before: str
    answer_after: str
    adapter: str
    first_loss_at: float | None

    @property
    def learned(self) -> bool:
        """Whether the held-out loss fell far enough."""
        return self.before is not None and self.after is not None and self.before - self.after >= MIN_FALL


def main() -> int:
    """Run the demo and return its exit code."""
    started = float(os.environ.get("AINFINITY_DEMO_STARTED") or time.time())
    try:
        files = prepare(load_settings().cache_dir / "demo")
        job = launch(files)
        watch(job)
        lesson = read_lesson(job)
    except DemoFailed as failed:
        return failed.code
    except AinfinityError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ndemo: no longer watching; what was launched goes on. See it: .venv/bin/ainfinity", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(describe(lesson, started))
    return EXIT_OK if lesson.learned else EXIT_OTHER


def prepare(cache: Path) -> dict[str, str]:
    """Return the paths of the demo's model and data, made on the first call."""
    if not cache.is_dir():
        say("preparing model and data (once; about half a minute)")
    done = subprocess.run([sys.executable, "-m", "training.demo", "--cache", str(cache)], stdout=subprocess.PIPE)
    if done.returncode:
        raise DemoFailed(done.returncode)
    return json.loads(done.stdout)


def launch(files: dict[str, str]) -> str:
    """Launch the demo's job, or find the one that is running, and return its id."""
    # JSON texts are YAML values too, whatever characters a path holds.
    paths = {"model": files["model"], "data": files["train"], "eval_data": files["eval"]}
    changes = [f"name={NAME}", *(f"{key}={json.dumps(path)}" for key, path in paths.items())]
    done = subprocess.run(
        [_COMMAND, "launch", RECIPE, *changes, "--yes", "--json"],
        capture_output=True,
        text=True,
    )
    if done.returncode == EXIT_REFUSED and '"name_taken"' in done.stderr:
        say("a demo is running already; this shows that one")
        return NAME
    sys.stderr.write(done.stderr)
    if done.returncode:
        raise DemoFailed(done.returncode)
    return json.loads(done.stdout)["id"]


def watch(job: str) -> None:
    """Show the job until it is over: in the terminal UI where there is a terminal, then as lines."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        subprocess.run(
            [sys.executable, "-c", "import sys; from scripts.demo import open_screen; open_screen(sys.argv[1])", job]
        )
    done = subprocess.run([_COMMAND, "wait", job])
    if done.returncode:
        raise DemoFailed(done.returncode)


def open_screen(job: str) -> None:
    """Open the terminal UI on one job."""
    from ainfinity.cli.screen import open_screen as show

    show(read_only=False, job=job)


def read_lesson(job: str) -> Lesson:
    """Gather what the finished job reported."""
    detail, events = _ask("show", job), _ask("events", job)
    # From the events of all attempts: one that resumed evaluates first at the step it resumed from.
    losses = [event["data"]["loss"] for event in events if event["type"] == "trainer.eval"]
    samples = [event["data"] for event in events if event["type"] == "trainer.sample"]
    points = _ask("metrics", job)
    adapters = [found["path"] for found in detail["artifacts"] if found["kind"] == "adapter"]
    return Lesson(
        job=detail["job"]["name"],
        before=losses[0] if losses else None,
        after=losses[-1] if losses else None,
        question=samples[0]["prompt"] if samples else "",
        answer_before=samples[0]["answer"] if samples else "",
        answer_after=samples[-1]["answer"] if samples else "",
        adapter=adapters[-1] if adapters else "",
        first_loss_at=min((point["at"] for point in points), default=None),
    )


def describe(lesson: Lesson, started: float) -> str:
    """Say what was learned, for people."""
    before, after = (f"{loss:.3f}" if loss is not None else "?" for loss in (lesson.before, lesson.after))
    verdict = "The model learned." if lesson.learned else f"The held-out loss did not fall by {MIN_FALL}."
    lines = [
        "",
        verdict,
        f"  held-out loss   {before} before, {after} after",
        f"  question        {lesson.question}",
        f"  answer before   {_short(lesson.answer_before)}",
        f"  answer after    {_short(lesson.answer_after)}",
        f"  adapter         {lesson.adapter}",
    ]
    if lesson.first_loss_at is not None:
        waited = round(lesson.first_loss_at - started)
        lines.append(f"  first loss      {waited // 60} min {waited % 60} s after `make demo`")
    lines.append(f"  look closer     .venv/bin/ainfinity, or .venv/bin/ainfinity show {lesson.job}")
    return "\n".join(lines)


def say(text: str) -> None:
    """Write a line of talk."""
    print(f"demo: {text}", file=sys.stderr, flush=True)


def _short(text: str) -> str:
    flat = harmless(" ".join(text.split()))
    return flat if len(flat) <= 160 else f"{flat[:159]}…"


def _ask(*words: str) -> Any:
    done = subprocess.run([_COMMAND, *words, "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise DemoFailed(done.returncode)
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main())

"""What is asked before something is done, and what will happen then. Pure."""

from __future__ import annotations

from typing import NamedTuple

from ainfinity.schema.states import JobState
from ainfinity.schema.views import JobRow
from tui import format as fmt
from tui.text import clean


class Question(NamedTuple):
    """A question with what will happen on yes, and the words of both answers."""

    title: str
    text: str
    yes: str
    no: str


def cancel_question(row: JobRow) -> Question:
    """Ask before cancelling."""
    name = clean(row.name)
    if row.state in (JobState.PLANNING, JobState.AWAITING_APPROVAL, JobState.QUEUED) and not row.progress.step:
        text = "It has not started: it is taken out of the queue, and nothing is lost."
    else:
        done = f" at step {row.progress.step:,} of {row.progress.total_steps:,}" if row.progress.total_steps else ""
        text = (
            f"Training stops{done}: it is told to save a checkpoint, and after a grace period whatever of it is left "
            "is killed and its machine let go. Checkpoints and log stay; r later goes on from the last checkpoint."
        )
    return Question(f"Cancel {name}?", text, "Cancel job", "Keep it")


def retry_question(row: JobRow) -> Question:
    """Ask before running a finished job again."""
    text = f"It is queued again as attempt {row.attempt + 1} and goes on from its newest complete checkpoint"
    step = row.progress.step
    text += f" (it had reached step {step:,})." if step else ", or from the start if there is none."
    if row.state == JobState.FAILED and row.error_code:
        text += f" It failed with {clean(row.error_code)}: if the cause stands, it will fail again."
    return Question(f"Run {clean(row.name)} again?", text, "Run it again", "Leave it")


def approve_question(row: JobRow) -> Question:
    """Ask before approving a plan."""
    place = " ".join(clean(part) for part in (row.infra, row.gpus) if part)
    return Question(f"Approve {clean(row.name)}?", f"It is queued and launched on {place}.", "Approve", "Not now")


def quit_words(live: int) -> str:
    """Say what goes on without this window; empty if nothing does."""
    if not live:
        return ""
    verb = "goes" if live == 1 else "go"
    return f"{fmt.plural(live, 'job')} {verb} on in the background. `ainfinity` shows them again."

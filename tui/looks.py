"""How a job's state looks: a symbol, a word and a tone, so that it can be told without colour."""

from __future__ import annotations

from typing import Final, NamedTuple

from ainfinity.schema.states import JOB_LIVE, JobState
from ainfinity.schema.views import JobRow
from tui.text import clean


class Look(NamedTuple):
    """A state as it is drawn. `group` is the word under which the status line counts it."""

    symbol: str
    label: str
    tone: str
    group: str


_S = JobState
LOOKS: Final[dict[str, Look]] = {
    _S.RUNNING: Look("●", "running", "live", "running"),
    _S.LAUNCHING: Look("◔", "launching", "live", "starting"),
    _S.RECOVERING: Look("↻", "recovering", "warn", "recovering"),
    _S.CANCELLING: Look("◑", "cancelling", "warn", "cancelling"),
    _S.QUEUED: Look("○", "queued", "text", "queued"),
    _S.AWAITING_APPROVAL: Look("◇", "to approve", "warn", "to approve"),
    _S.PLANNING: Look("◌", "planning", "text", "planning"),
    _S.FAILED: Look("✗", "failed", "bad", "failed"),
    _S.SUCCEEDED: Look("✓", "succeeded", "good", "done"),
    _S.CANCELLED: Look("⊘", "cancelled", "dim", "cancelled"),
    _S.REJECTED: Look("∅", "rejected", "dim", "rejected"),
}
#: The order of jobs in the table: what runs first, then what waits, then what is over.
RANK: Final[dict[str, int]] = {state: min(rank, 7) for rank, state in enumerate(LOOKS)}
LABEL_WIDTH: Final = max(len(look.label) for look in LOOKS.values())


def look_of(state: str) -> Look:
    """Return the look of a state, also of one that only a newer service knows."""
    known = LOOKS.get(state)
    return known if known is not None else Look("·", clean(state)[:LABEL_WIDTH] or "unknown", "dim", "other")


def row_look(row: JobRow) -> Look:
    """Return the look of a job; one that is out of contact shows so, because its state is only the last one known.

    One whose attempt ended while its machine is kept, and paid for, shows that.
    """
    look = look_of(row.state)
    if row.stale_since is not None and row.state in JOB_LIVE:
        return Look("?", "no contact", "warn", look.group)
    if row.kept_until is not None and row.state in JOB_LIVE:
        return Look("!", "kept", "warn", look.group)
    if row.stuck_since is not None and row.state in JOB_LIVE:
        return Look("‖", "stuck", "warn", look.group)
    return look


def is_live(state: str) -> bool:
    """Whether a job in this state is not over; an unknown state is not known to be over."""
    return state in JOB_LIVE or state not in LOOKS


_RETRIED = frozenset({JobState.FAILED, JobState.CANCELLED})


def may_cancel(row: JobRow | None) -> bool:
    """Whether cancelling makes sense."""
    return row is not None and row.state in JOB_LIVE and row.state != JobState.CANCELLING


def may_retry(row: JobRow | None) -> bool:
    """Whether a job can be queued again."""
    return row is not None and row.state in _RETRIED


def may_approve(row: JobRow | None) -> bool:
    """Whether a job waits for a person."""
    return row is not None and row.state == JobState.AWAITING_APPROVAL

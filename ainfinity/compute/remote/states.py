"""What each of SkyPilot's states means here: one table for each kind of thing that has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ainfinity.domain.observation import Phase

#: What SkyPilot ends a job with of which it knows no exit code.
_FAILED: Final = 1


@dataclass(frozen=True, slots=True)
class State:
    """A state in our words. `code` and `reason` tell of an end what no exit code does."""

    phase: Phase
    exit_code: int | None = None
    code: str = ""
    reason: str = ""

    @property
    def is_end(self) -> bool:
        """Whether nothing comes after it."""
        return self.phase in (Phase.EXITED, Phase.VANISHED)


_CANCELLED: Final = State(Phase.EXITED, None, "", "terminated")
_SETUP: Final = State(
    Phase.EXITED, _FAILED, "setup_failed", "The setup on the machine failed. See `ainfinity logs` for its last lines."
)

#: The one end after which nobody looked after the cluster.
CONTROLLER_FAILED: Final = "FAILED_CONTROLLER"

#: Managed jobs, whose machines SkyPilot replaces by itself.
MANAGED: Final[dict[str, State]] = {
    "PENDING": State(Phase.PENDING),
    "SUBMITTED": State(Phase.PENDING),
    "STARTING": State(Phase.PENDING),
    "RUNNING": State(Phase.RUNNING),
    "WINDING_DOWN": State(Phase.RUNNING),
    "RECOVERING": State(Phase.RECOVERING),
    # Nothing is to be told until it is over.
    "CANCELLING": State(Phase.PENDING),
    "SUCCEEDED": State(Phase.EXITED, 0),
    "CANCELLED": _CANCELLED,
    "FAILED": State(Phase.EXITED, _FAILED),
    "FAILED_SETUP": _SETUP,
    "FAILED_PRECHECKS": State(
        Phase.EXITED,
        _FAILED,
        "prechecks_failed",
        "SkyPilot cannot launch this. Change resources as it says, or run `sky check`.",
    ),
    "FAILED_NO_RESOURCE": State(
        Phase.EXITED,
        _FAILED,
        "no_resources",
        "No such machine is to be had. See `ainfinity gpus`, and set resources to something that is there.",
    ),
    CONTROLLER_FAILED: State(
        Phase.VANISHED, None, "", "SkyPilot's controller of the job failed; see `sky jobs logs --controller`"
    ),
}

#: Jobs in the queue of a cluster.
CLUSTER_JOB: Final[dict[str, State]] = {
    "INIT": State(Phase.SETTING_UP),
    "PENDING": State(Phase.SETTING_UP),
    "SETTING_UP": State(Phase.SETTING_UP),
    "RUNNING": State(Phase.RUNNING),
    "SUCCEEDED": State(Phase.EXITED, 0),
    "FAILED": State(Phase.EXITED, _FAILED),
    "FAILED_SETUP": _SETUP,
    # Its driver on the head node was killed: by want of memory, or with the node.
    "FAILED_DRIVER": State(Phase.VANISHED, None, "", "the job's driver on its first node was killed"),
    "CANCELLED": _CANCELLED,
}

#: Clusters, where nothing is known of their job.
CLUSTER: Final[dict[str, State]] = {
    "PENDING": State(Phase.PENDING),
    "INIT": State(Phase.PENDING),
    "UP": State(Phase.SETTING_UP),
    "AUTOSTOPPING": State(Phase.SETTING_UP),
    "STOPPED": State(Phase.VANISHED, None, "", "its cluster was stopped"),
}


def state_of(table: dict[str, State], word: str) -> State:
    """Return what a state means; one that a newer SkyPilot has invented is taken for one on the way."""
    return table.get(word, State(Phase.PENDING))

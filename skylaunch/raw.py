"""A user's own SkyPilot task, launched as it is: with another name, our marks, and the deadline kept around `run`.

The guard stands before the user's script, in the same shell, so that this runs as it would alone: in the same bash
with what `.bashrc` and SkyPilot set up, with the same environment, `set` options, arguments, line numbers and exit
code. What is added is the variable AINFINITY_GUARD and a trap on one real-time signal, which comes at the deadline
alone: then the shell exits with 76 and everything it started is ended. The setup is left alone.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ainfinity.core.constants import ATTEMPT_MARK, DEADLINE_MARK
from skylaunch.templates import read_scripts

#: On the first line of the user's own script, so that its lines keep their numbers.
_PREFIX = 'eval "$AINFINITY_WATCH"; '
_FORGET = "unset AINFINITY_WATCH; unset -f ainfinity_deadline ainfinity_is_late ainfinity_watch\n"


def render_raw(task: Mapping[str, Any], attempt: str, deadline: float | None) -> dict[str, Any]:
    """Return the task under the attempt's name. What SkyPilot will not take stays in it, for SkyPilot to say."""
    rendered = copy.deepcopy(dict(task))
    rendered["name"] = attempt
    marks = {ATTEMPT_MARK: attempt}
    if deadline is not None:
        marks[DEADLINE_MARK] = str(int(deadline))
    if isinstance(rendered.get("run"), str):
        marks["AINFINITY_WATCH"] = read_scripts(["guard.sh"]) + _FORGET
    given = rendered.get("envs")
    if given is None or isinstance(given, dict):
        rendered["envs"] = {**(given or {}), **marks}
    if isinstance(rendered.get("run"), str):
        rendered["run"] = _PREFIX + rendered["run"]
    return rendered

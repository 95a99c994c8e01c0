"""Names and numbers that more than one layer uses."""

from __future__ import annotations

from typing import Final

APP_NAME: Final = "ainfinity"

#: The mark in the environment of every process of an attempt; what is left after a kill is found by it.
ATTEMPT_MARK: Final = "AINFINITY_ATTEMPT"

#: The run wrapper checkpoints and ends the attempt at this moment (Unix seconds), whoever else is alive.
DEADLINE_MARK: Final = "AINFINITY_DEADLINE"

#: Names a file that holds another deadline once one is given, or the word `none`.
DEADLINE_FILE_MARK: Final = "AINFINITY_DEADLINE_FILE"

#: Names of secrets are names of environment variables.
SECRET_NAME_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"  # noqa: S105  # a pattern for names, no password

#: Exit codes of the command line; part of the interface.
EXIT_OK: Final = 0
EXIT_OTHER: Final = 1
EXIT_USAGE: Final = 2
EXIT_REFUSED: Final = 3
EXIT_UNREACHABLE: Final = 4
EXIT_JOB_FAILED: Final = 100
EXIT_NOT_FINISHED: Final = 101
EXIT_NOT_FOUND: Final = 102
EXIT_CANCELLED: Final = 103
EXIT_INTERRUPTED: Final = 130

#: A trainer that finds its checkpoint folder claimed by another copy of its attempt exits with this code.
#: It is never read as the job's outcome.
EXIT_SECOND_COPY: Final = 75
#: A trainer that saved a checkpoint on SIGTERM or at its deadline exits with this code.
EXIT_STOPPED: Final = 76

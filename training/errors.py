"""The one exception of the trainer: it becomes the `failed` line and the exit code of a run."""

from __future__ import annotations

from typing import Final

EXIT_OK: Final = 0
EXIT_OTHER: Final = 1
EXIT_INVALID: Final = 2
EXIT_SECOND_COPY: Final = 75
EXIT_STOPPED: Final = 76


class TrainingError(Exception):
    """A run that cannot go on. `code` is stable, `message` says what happened, `hint` what to do next.

    `shared` means that every rank fails in the same way, so that rank 0 speaks for all.
    """

    def __init__(
        self, code: str, message: str, hint: str = "", exit_code: int = EXIT_OTHER, shared: bool = False
    ) -> None:
        super().__init__(code, message, hint, exit_code, shared)  # all of them, so that it pickles from rank to rank
        self.code = code
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
        self.shared = shared

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


def invalid(code: str, message: str, hint: str = "") -> TrainingError:
    """A fault in what the user gave: recipe, data or model. Every rank finds the same one."""
    return TrainingError(code, message, hint, EXIT_INVALID, shared=True)

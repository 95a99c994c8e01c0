"""Logging of every process: standard library, one line a record, no secret in any of them."""

from __future__ import annotations

import logging
import logging.handlers
import time
from pathlib import Path
from typing import Final

from ainfinity.core.constants import APP_NAME
from ainfinity.core.exceptions import FolderUnwritable, UsageError
from ainfinity.core.redact import learn_environment, redact

_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_FILE_BYTES: Final = 5 * 1024 * 1024
_FILES: Final = 3


class RedactingFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO ainfinity.engine[4711] message`, with tracebacks, and with secrets hidden."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s[%(process)d] %(message)s")
        self.converter = time.gmtime
        self.default_time_format = "%Y-%m-%dT%H:%M:%S"
        self.default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        return redact(super().format(record))


def configure_logging(level: str, *, file: Path | None = None) -> None:
    """Send records of ainfinity at `level` and above, and warnings of all else, to stderr or to a rotating `file`.

    Errors:
        UsageError: no such level.
        FolderUnwritable: the file cannot be written.
    """
    name = level.strip().upper()
    if name not in _LEVELS:
        raise UsageError(
            f"AINFINITY_LOG_LEVEL must be one of {', '.join(_LEVELS)}.",
            hint="Set it right or unset it.",
            field="log_level",
        )
    learn_environment()
    handler: logging.Handler = logging.StreamHandler()
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handler = logging.handlers.RotatingFileHandler(
                file, maxBytes=_FILE_BYTES, backupCount=_FILES - 1, encoding="utf-8", errors="backslashreplace"
            )
        except OSError as error:
            raise FolderUnwritable(
                f"{file.parent} cannot be written: {error.strerror}.",
                hint="Set AINFINITY_DATA_DIR to a folder of yours.",
            ) from None
    handler.setFormatter(RedactingFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(APP_NAME).setLevel(name)

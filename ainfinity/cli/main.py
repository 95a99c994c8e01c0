"""The entry point: run a command, and turn whatever it raises into one message and one exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ainfinity.core.constants import EXIT_INTERRUPTED, EXIT_OK, EXIT_OTHER, EXIT_REFUSED, EXIT_USAGE
from ainfinity.core.exceptions import AinfinityError, NotSupported

if TYPE_CHECKING:
    from pathlib import Path

COMPLETE_VARIABLE = "_AINFINITY_COMPLETE"


def main() -> None:
    """Run the command line of this process and exit."""
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        _drop_output()
    if code == EXIT_INTERRUPTED:
        os._exit(code)  # a thread that waits for somebody else would hold up whoever wants to leave
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Nothing a person can cause leaves as an exception."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal whose encoding lacks a character shows its escape instead
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore
    try:
        if sys.platform == "win32":
            hint = "Use WSL2: `wsl --install`, then install ainfinity there."
            raise NotSupported("ainfinity does not run on Windows itself.", hint=hint)
        return _invoke(list(arguments))
    except AinfinityError as error:
        _show(error, as_json="--json" in arguments)
        return error.exit_code
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        _drop_output()
        return EXIT_OK
    except Exception as error:  # noqa: BLE001  # the last resort: everything expected is handled above
        return _crashed(error)


def _invoke(arguments: list[str]) -> int:
    if arguments in ([], ["--read-only"]) and COMPLETE_VARIABLE not in os.environ:
        # The screen needs nothing of the parser, whose import takes as long as half of its first frame.
        from ainfinity.cli.screen import open_screen

        return open_screen(read_only=bool(arguments))
    import typer

    from ainfinity.cli.app import app

    command: Any = typer.main.get_command(app)
    if COMPLETE_VARIABLE in os.environ:
        from typer._completion_classes import completion_init  # pyright: ignore[reportPrivateUsage]

        completion_init()  # without its own --install-completion Typer knows no shell by itself
        try:
            command.main(arguments, prog_name="ainfinity", complete_var=COMPLETE_VARIABLE)
        except SystemExit as done:
            return done.code if isinstance(done.code, int) else EXIT_OK
    try:
        with command.make_context("ainfinity", arguments) as context:
            result = command.invoke(context)
    except typer.Exit as exit_:
        return exit_.exit_code
    except typer.Abort:
        return EXIT_REFUSED
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return _usage(error)
    return result if isinstance(result, int) else EXIT_OK


def _usage(error: Any) -> int:
    """Show what the parser found wrong with the command line: one line, and where to read on."""
    from ainfinity.cli.output import say

    context = getattr(error, "ctx", None)
    path = context.command_path if context else "ainfinity"
    say(f"Error: {error.format_message()}")
    say(f"`{path} --help` shows what can be given.")
    return EXIT_USAGE


def _show(error: AinfinityError, *, as_json: bool) -> None:
    from ainfinity.cli.output import colour, harmless, say

    if as_json:
        import json

        say(json.dumps({"error": error.as_dict()}, ensure_ascii=False))
        return
    say(f"{colour('Error:', 'red', sys.stderr)} {harmless(error.message)}")
    if error.hint:
        say(harmless(error.hint))
    if os.environ.get("AINFINITY_LOG_LEVEL", "").upper() == "DEBUG":
        import traceback

        say("".join(traceback.format_exception(error)))


def _interrupted() -> int:
    from ainfinity.cli import session
    from ainfinity.cli.output import say

    try:
        say(f"\n{session.interruption}" if session.interruption else "\nInterrupted.")
    except (BrokenPipeError, KeyboardInterrupt):
        _drop_output()
    return EXIT_INTERRUPTED


def _crashed(error: Exception) -> int:
    """Say that this is our fault in one line, and leave the traceback, redacted, in a file."""
    import traceback

    from ainfinity.cli.output import say
    from ainfinity.cli.session import learn_secrets
    from ainfinity.core.redact import redact

    learn_secrets()
    text = redact("".join(traceback.format_exception(error)))
    say(
        f"Error: ainfinity failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(
            ": "
        )
    )
    try:
        path = _crash_file()
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        say(f"This is a fault of ainfinity, not yours. Please report it with {path}.")
    except (OSError, AinfinityError):
        say(text)
    if os.environ.get("AINFINITY_LOG_LEVEL", "").upper() == "DEBUG":
        say(text)
    return EXIT_OTHER


def _crash_file() -> Path:
    import time

    from ainfinity.core.config import load_settings

    folder = load_settings().data_dir / "crash"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}.txt"


def _drop_output() -> None:
    """Whoever read our output has gone: let nothing at exit try to write to them again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())

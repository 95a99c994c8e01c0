"""`ainfinity secrets`. Values come from stdin or a prompt, because a command line is open to every process."""

from __future__ import annotations

import getpass
import sys

from ainfinity.cli.output import interactive, say, write, write_json
from ainfinity.core.config import load_settings
from ainfinity.core.constants import EXIT_OK
from ainfinity.core.exceptions import UsageError
from ainfinity.core.secrets import check_name, open_secrets

_LONGEST = 64 * 1024


def set_secret(name: str) -> int:
    """Store a secret under `name`, its value read from stdin or asked for without echo."""
    if "=" in name:
        raise UsageError(
            "A value on the command line can be read by others, and stays in the shell's history.",
            hint="Give the name alone, and the value on stdin: `ainfinity secrets set NAME < file`. Renew that secret.",
        )
    check_name(name)
    store = open_secrets(load_settings())
    if interactive():
        value = getpass.getpass(f"Value of {name}: ")
    else:
        value = sys.stdin.read(_LONGEST).removesuffix("\n").removesuffix("\r")
    if not value:
        raise UsageError(f"No value for {name} came on stdin.", hint=f"`ainfinity secrets set {name} < file`.")
    store.set(name, value)
    say(f"Stored {name} in {store.place}. A job gets it when it lists the name under `secrets:`.")
    return EXIT_OK


def list_secrets(*, as_json: bool) -> int:
    """Write the names of stored secrets."""
    store = open_secrets(load_settings())
    names = store.names()
    if as_json:
        write_json({"secrets": names, "place": store.place})
        return EXIT_OK
    for name in names:
        write(name)
    if not names:
        say("No secrets yet. `ainfinity secrets set NAME` stores one.")
    return EXIT_OK


def remove_secret(name: str) -> int:
    """Forget a secret."""
    open_secrets(load_settings()).remove(name)
    say(f"Removed {name}.")
    return EXIT_OK

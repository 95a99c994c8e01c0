"""Who gives a command, and what they may do."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from enum import IntEnum

from ainfinity.core.exceptions import NotAllowed


class Role(IntEnum):
    """What an actor may do; each role includes those below it."""

    VIEWER = 1
    LAUNCHER = 2
    APPROVER = 3
    ADMIN = 4


@dataclass(frozen=True, slots=True)
class Actor:
    """A person or program by the front that vouches for them: `local:ann`, later `slack:…` and `token:…`."""

    name: str
    role: Role = Role.ADMIN

    def must_be(self, role: Role, action: str) -> None:
        """Refuse `action` unless the actor has at least this role. Errors: NotAllowed."""
        if self.role < role:
            raise NotAllowed(
                f"{self.name} is {self.role.name.lower()} and may not {action}.",
                hint=f"Ask an admin for the role {role.name.lower()}.",
            )


#: The engine itself, as the author of what it records.
ENGINE = Actor("engine")


def local_actor() -> Actor:
    """Return the embedded user: whoever is logged in here, as admin."""
    try:
        login = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in some containers
        login = "unknown"
    return Actor(f"local:{login}")

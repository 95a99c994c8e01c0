"""The exceptions of ainfinity: one tree, one mapping to exit code and HTTP status.

```
AinfinityError                 other                1    500
├── UsageError                 usage                2    400
│   ├── InvalidFile            invalid_file         2    422
│   ├── InvalidSpec            invalid_spec         2    422
│   └── DataInvalid            data_invalid         2    422
├── NotFound                   not_found          102    404
│   └── AmbiguousName          ambiguous_name       2    409
├── Refused                    refused              3    409
│   ├── NotAllowed             not_allowed          3    403
│   ├── WrongState             wrong_state          3    409
│   ├── NameTaken              name_taken           3    409
│   ├── KeyReused              key_reused           3    409
│   ├── ApprovalNeeded         approval_needed      3    409
│   ├── PlanChanged            plan_changed         3    409
│   ├── NotSupported           not_supported        3    501
│   └── MissingTool            missing_tool         3    424
├── Unreachable                unreachable          4    503
│   ├── DatabaseLocked         database_locked      4    503
│   ├── DatabaseNewer          database_newer       4    503
│   ├── DatabaseOlder          database_older       4    503
│   ├── DatabaseBroken         database_broken      4    503
│   ├── ComputeUnreachable     compute_unreachable  4    503
│   └── FolderUnwritable       folder_unwritable    4    507
├── LeaseLost                  lease_lost           4    409
└── Internal                   internal             1    500
```

A message says what is wrong; `hint` says what to do next. Both are for people and hold no secret.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ainfinity.core.constants import EXIT_NOT_FOUND, EXIT_OTHER, EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE


class AinfinityError(Exception):
    """The root. `code` is stable and meant for programs; `field` names the setting at fault, if one is."""

    code: ClassVar[str] = "other"
    exit_code: ClassVar[int] = EXIT_OTHER
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "", field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.field = field

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def as_dict(self) -> dict[str, Any]:
        """Return the error as fronts show it in JSON: `code`, `message`, and `hint` and `field` where set."""
        shown = {"code": self.code, "message": self.message, "hint": self.hint, "field": self.field}
        return {key: value for key, value in shown.items() if value}


class UsageError(AinfinityError):
    """The command or call is not well formed."""

    code = "usage"
    exit_code = EXIT_USAGE
    http_status = 400


class InvalidFile(UsageError):
    """A file that a person wrote cannot be read as what it should be; the message names file and line."""

    code = "invalid_file"
    http_status = 422


class InvalidSpec(UsageError):
    """A job's settings contradict each other or a rule; the message names the setting to change."""

    code = "invalid_spec"
    http_status = 422


class DataInvalid(UsageError):
    """The training data cannot be used; the message names file and line."""

    code = "data_invalid"
    http_status = 422


class NotFound(AinfinityError):
    """No job, recipe, secret or file of that name."""

    code = "not_found"
    exit_code = EXIT_NOT_FOUND
    http_status = 404


class AmbiguousName(NotFound):
    """Several jobs fit the abbreviation."""

    code = "ambiguous_name"
    exit_code = EXIT_USAGE
    http_status = 409


class Refused(AinfinityError):
    """The wish is understood and will not be carried out."""

    code = "refused"
    exit_code = EXIT_REFUSED
    http_status = 409


class NotAllowed(Refused):
    """The actor's role does not permit this."""

    code = "not_allowed"
    http_status = 403


class WrongState(Refused):
    """The job is in a state in which this makes no sense, for example cancelling a finished job."""

    code = "wrong_state"


class NameTaken(Refused):
    """A live job has that name already."""

    code = "name_taken"


class KeyReused(Refused):
    """The idempotency key was used before, for a different job."""

    code = "key_reused"


class ApprovalNeeded(Refused):
    """The plan must be approved first, and no one is here to ask."""

    code = "approval_needed"


class PlanChanged(Refused):
    """The approval was for another plan than the one that stands now."""

    code = "plan_changed"


class NotSupported(Refused):
    """This installation or backend cannot do that."""

    code = "not_supported"
    http_status = 501


class MissingTool(Refused):
    """Something that must be installed on this machine is not; the hint says how to install it."""

    code = "missing_tool"
    http_status = 424


class Unreachable(AinfinityError):
    """A service, database or folder cannot be used now; trying again later may work."""

    code = "unreachable"
    exit_code = EXIT_UNREACHABLE
    http_status = 503


class DatabaseLocked(Unreachable):
    """Another process held the database for longer than the busy timeout."""

    code = "database_locked"


class DatabaseNewer(Unreachable):
    """The database was written by a newer ainfinity; nothing was touched."""

    code = "database_newer"


class DatabaseOlder(Unreachable):
    """The database must be migrated first."""

    code = "database_older"


class DatabaseBroken(Unreachable):
    """The file is no database, or a damaged one."""

    code = "database_broken"


class ComputeUnreachable(Unreachable):
    """A compute backend does not answer. Lost contact is not failure."""

    code = "compute_unreachable"


class FolderUnwritable(Unreachable):
    """A folder that must be written cannot be, or its disk is full."""

    code = "folder_unwritable"
    http_status = 507


class LeaseLost(AinfinityError):
    """Another worker holds the lease now; the late owner must stop without writing."""

    code = "lease_lost"
    exit_code = EXIT_UNREACHABLE
    http_status = 409


class Internal(AinfinityError):
    """A fault of ainfinity itself."""

    code = "internal"

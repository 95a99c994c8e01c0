"""What SkyPilot's errors mean: one table, from the error's class and words to ours, with the next step.

Classes are told by name, so that nothing of SkyPilot is imported, and errors of its server, which come without their
class, are told by their words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ainfinity.compute.remote.rows import Gone, RequestLost, SkyRefused
from ainfinity.core.exceptions import AinfinityError, ComputeUnreachable
from ainfinity.core.redact import redact


class Meaning(StrEnum):
    """What follows from an error."""

    #: Nothing is known: ask again later.
    UNREACHABLE = "unreachable"
    #: The server forgot the request.
    LOST = "lost"
    #: The cluster or job is not there, or not up.
    GONE = "gone"
    #: It was not done and will not be.
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Fault:
    """A row of the table: an error of one of these classes whose text matches. `{text}` is SkyPilot's own text."""

    kind: str
    meaning: Meaning
    classes: tuple[str, ...]
    text: re.Pattern[str]
    message: str
    hint: str


_NETWORK: Final = ("RequestException", "HTTPError", "TransportError", "ConnectionError", "TimeoutError")
_TEMPORARY: Final = (
    "ServerTemporarilyUnavailableError",
    "RequestInterruptedError",
    "ExecutionRetryableError",
    "ExecutionPoolFullError",
    "ConcurrentWorkerExhaustedError",
    "CachedClusterUnavailable",
    "NetworkError",
    "ClusterStatusFetchingError",
    "FetchClusterInfoError",
    "KubeAPIUnreachableError",
    "SkyletInternalError",
    "SkyletUnavailableError",
)


def _fault(kind: str, meaning: Meaning, classes: tuple[str, ...], text: str, message: str, hint: str) -> Fault:
    return Fault(kind, meaning, classes, re.compile(text, re.IGNORECASE | re.DOTALL), message, hint)


#: The first row that fits holds. An empty tuple of classes is any class.
FAULTS: Final[tuple[Fault, ...]] = (
    _fault(
        "login", Meaning.UNREACHABLE, ("ApiServerAuthenticationError",), "",
        "SkyPilot's API server wants a login.", "Run `sky api login`.",
    ),
    _fault(
        "server_down", Meaning.UNREACHABLE, ("ApiServerConnectionError",), "",
        "SkyPilot's API server does not answer.",
        "Start the local one with `ainfinity sky start`, or set SKYPILOT_API_SERVER_ENDPOINT to yours.",
    ),
    _fault(
        "version", Meaning.UNREACHABLE, ("APIVersionMismatchError", "APINotSupportedError"), "",
        "SkyPilot's API server and this installation do not fit: {text}", "Bring both to the same version.",
    ),
    _fault(
        "request_lost", Meaning.LOST, ("RuntimeError", "ClientError", "HTTPError"),
        r"failed to get request \S+ 404|request '\S+' not found|request or log path was not found|: 404 client error",
        "SkyPilot's API server no longer knows a request that it took.", "It is looked for by name.",
    ),
    _fault(
        "not_json", Meaning.UNREACHABLE, ("RuntimeError",),
        r"failed to (get request \S+ 5\d\d|process response|get request id)",
        "SkyPilot's API server gave no proper answer: {text}", "It is asked again.",
    ),
    _fault(
        "cluster_gone", Meaning.GONE, ("ClusterDoesNotExist",), "",
        "SkyPilot knows no such cluster.", "See `sky status`.",
    ),
    _fault(
        "cluster_not_up", Meaning.GONE, ("ClusterNotUpError",), "",
        "The cluster is not up.", "See `sky status --refresh`.",
    ),
    _fault(
        "temporary", Meaning.UNREACHABLE, _TEMPORARY, "",
        "SkyPilot could not do it now: {text}", "It is tried again.",
    ),
    _fault(
        "no_answer", Meaning.UNREACHABLE, _NETWORK, "",
        "SkyPilot's API server does not answer: {text}", "It is asked again; `sky api info` tells how it is.",
    ),
    _fault(
        "credentials", Meaning.REFUSED, (),
        r"no cloud access|no (?:infra|cloud) is enabled|not enabled|invalid ?credential|InvalidCloudCredentials"
        r"|AuthFailure|UnauthorizedOperation|expired ?token|credentials? (?:were|are|is) (?:not found|invalid|expired)"
        r"|NoCredentials|permission denied \(publickey",
        "SkyPilot has no valid credentials for this infrastructure: {text}", "Run `sky check` and do what it says.",
    ),
    _fault(
        "credentials", Meaning.REFUSED,
        ("NoCloudAccessError", "InvalidCloudCredentials", "CloudUserIdentityError",
         "ClusterOwnerIdentityMismatchError"), "",
        "SkyPilot has no valid credentials for this infrastructure: {text}", "Run `sky check` and do what it says.",
    ),
    _fault(
        "not_allowed", Meaning.REFUSED, ("PermissionDeniedError", "UserRequestRejectedByPolicy"), "",
        "SkyPilot does not allow it: {text}", "Ask whoever runs your API server.",
    ),
    _fault(
        "secret_missing", Meaning.REFUSED, (), r"no value available for secret",
        "The task wants a secret that has no value: {text}", "Store it with `ainfinity secrets set NAME`, and name it.",
    ),
    _fault(
        "not_supported", Meaning.REFUSED, ("ResourcesUnavailableError",), r"features are not supported by",
        "This infrastructure cannot do that: {text}", "Change the setting that it names, or resources.infra.",
    ),
    _fault(
        "quota", Meaning.REFUSED, (), r"quota|LimitExceeded|limit exceeded|exceeded .{0,40}limit",
        "The cloud's quota does not suffice: {text}",
        "Ask the cloud for more, or set resources.infra or resources.gpus to what the quota allows.",
    ),
    _fault(
        "no_resources", Meaning.REFUSED, ("ResourcesUnavailableError", "ManagedJobReachedMaxRetriesError"), "",
        "No such machine is to be had: {text}",
        "See `ainfinity gpus`, and set resources.infra, resources.gpus or resources.nodes to something that is there.",
    ),
    _fault(
        "mismatch", Meaning.REFUSED, ("ResourcesMismatchError",), "",
        "A cluster of that name has other machines: {text}", "End it with `ainfinity orphans --remove NAME`.",
    ),
    _fault(
        "storage", Meaning.REFUSED, ("StorageError", "StorageSpecError"), "",
        "The bucket cannot be used: {text}", "Check resources.storage, and the credentials with `sky check`.",
    ),
    _fault(
        "setup", Meaning.REFUSED, ("ClusterSetUpError",), "",
        "The machine could not be set up: {text}", "See the job's log for the command that failed.",
    ),
    _fault(
        "not_supported", Meaning.REFUSED,
        ("NotSupportedError", "ProvisionUnsupportedError", "ProvisionPrechecksError"), "",
        "This infrastructure cannot do that: {text}", "Change the setting that it names, or resources.infra.",
    ),
    _fault(
        "cancelled", Meaning.REFUSED, ("RequestCancelled",), "",
        "It was cancelled at SkyPilot's API server.", "Retry the job if that was not you.",
    ),
    _fault(
        "bad_task", Meaning.REFUSED,
        ("ValueError", "TypeError", "AssertionError", "KeyError", "ValidationError", "InvalidSkyPilotConfigError",
         "InvalidClusterNameError", "InvalidCloudConfigs", "KubernetesValidationError", "FileNotFoundError"), "",
        "SkyPilot does not accept the task: {text}", "Correct what it names in the job file.",
    ),
    _fault(
        "bad_task", Meaning.REFUSED, (), r"invalid task yaml|additional properties are not allowed",
        "SkyPilot does not accept the task: {text}", "Correct what it names in the job file.",
    ),
    _fault(
        "command", Meaning.REFUSED, ("CommandError",), "",
        "A command of SkyPilot on the machine failed: {text}", "See the job's log for its output.",
    ),
    # What nobody foresaw says nothing of the job.
    _fault("unknown", Meaning.UNREACHABLE, (), "", "SkyPilot failed: {text}", "It is asked again."),
)  # fmt: skip

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST: Final = 600
#: Which feature is missing, out of a table of them.
_UNSUPPORTED: Final = re.compile(r"features are not supported by \w+: Feature Reason \w+ (.*?\.)(?: ?;| |$)")
_ADVICE: Final = re.compile(
    r" ?(?:To fix: (?:relax|check)|Hint: |To keep retrying|A secret with no inline |To enable access, )"
)


def find_fault(error: BaseException) -> Fault:
    """Return the row that fits an error."""
    names = {kind.__name__ for kind in type(error).__mro__}
    text = _text(error)
    return next(row for row in FAULTS if (not row.classes or names & set(row.classes)) and row.text.search(text))


def translate(error: BaseException) -> AinfinityError:
    """Return our error for one of SkyPilot's; one of ours stays as it is."""
    if isinstance(error, AinfinityError):
        return error
    row = find_fault(error)
    message = row.message.format(text=_shorten(_text(error)))
    match row.meaning:
        case Meaning.UNREACHABLE:
            return ComputeUnreachable(message, hint=row.hint)
        case Meaning.LOST:
            return RequestLost(message, hint=row.hint)
        case Meaning.GONE:
            return Gone(message, hint=row.hint)
        case Meaning.REFUSED:
            return SkyRefused(message, hint=row.hint, kind=row.kind)


def translate_outcome(error: BaseException) -> AinfinityError:
    """Return our error for how a launch ended that is over: its failing is the answer, and not the want of one."""
    if isinstance(error, AinfinityError):
        return error
    row, text = find_fault(error), _shorten(_text(error))
    match row.kind:
        case "unknown":
            return SkyRefused(f"SkyPilot could not launch it: {text}", hint="See the job's log.", kind="launch_failed")
        case "temporary" | "no_answer":
            return RequestLost(f"The launch was broken off: {text}", hint="It is launched again.")
        case _:
            return translate(error)


def _text(error: BaseException) -> str:
    """All that an error says, with what each place that was tried said: the reason is often only there."""
    parts = [str(error), *(str(one) for one in getattr(error, "failover_history", None) or ())]
    parts += [str(one) for one in getattr(error, "reasons", None) or ()]
    return redact(_COLOUR.sub("", "; ".join(part for part in parts if part)) or type(error).__name__)


def _shorten(text: str) -> str:
    """One line without drawings, and without the traceback and the advice for users of `sky` that may follow."""
    text = re.sub(r"[│├└─╭╮╰╯┌┐┘┤┬┴┼|]+", " ", text.split("Traceback (most recent call last)")[0])
    text = " ".join(text.split())
    unsupported = _UNSUPPORTED.search(text)
    text = unsupported[1] if unsupported else _ADVICE.split(text)[0]
    text = text.rstrip(". ")
    return f"{text[:_LONGEST]}…" if len(text) > _LONGEST else f"{text}."

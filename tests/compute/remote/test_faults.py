"""What each kind of error of SkyPilot comes to: over its own classes, and its own words as they were seen."""

from __future__ import annotations

import re

import pytest

from ainfinity.compute.remote.faults import FAULTS, find_fault, translate, translate_outcome
from ainfinity.compute.remote.rows import Gone, RequestLost, SkyRefused
from ainfinity.core.exceptions import ComputeUnreachable
from ainfinity.core.redact import learn

exceptions = pytest.importorskip("sky.exceptions")
requests = pytest.importorskip("requests")

URL = "http://127.0.0.1:46580"
UNREACHABLE = [
    ("server_down", exceptions.ApiServerConnectionError(URL), "does not answer"),
    ("login", exceptions.ApiServerAuthenticationError(URL), "sky api login"),
    ("version", exceptions.APIVersionMismatchError("client 0.14, server 0.9"), "same version"),
    ("no_answer", requests.exceptions.ReadTimeout("Read timed out."), "asked again"),
    ("no_answer", requests.exceptions.HTTPError("502 Server Error: Bad Gateway"), "asked again"),
    ("not_json", RuntimeError("Failed to get request 1a2b: 500 <html>oops</html>"), "no proper answer"),
    ("temporary", exceptions.ServerTemporarilyUnavailableError("shutting down"), "shutting down"),
    ("temporary", exceptions.RequestInterruptedError("restarted"), "tried again"),
    ("unknown", RuntimeError("something new"), "something new"),
]
REFUSED = [
    ("credentials", exceptions.NoCloudAccessError("No cloud access is set up."), "sky check"),
    (
        "credentials",
        exceptions.ResourcesUnavailableError(
            "Task requires aws which is not enabled. To enable access, run: sky check"
        ),
        "sky check",
    ),
    ("credentials", exceptions.InvalidCloudCredentials("AWS keys expired"), "sky check"),
    (
        "quota",
        exceptions.ResourcesUnavailableError(
            "Failed to provision.", failover_history=[Exception("VcpuLimitExceeded: your quota of 0 vCPUs")]
        ),
        "VcpuLimitExceeded",
    ),
    (
        "no_resources",
        exceptions.ResourcesUnavailableError("Catalog does not contain any instances satisfying the request: A100:1"),
        "ainfinity gpus",
    ),
    (
        "not_supported",
        exceptions.ResourcesUnavailableError(
            "Catalog does not contain any.\nThe following features are not supported by Slurm:\n"
            "    Feature        Reason\n    spot_instance  Spot instances are not supported in Slurm."
        ),
        "Spot instances are not supported in Slurm",
    ),
    ("not_supported", exceptions.NotSupportedError("Stopping is not supported."), "resources.infra"),
    ("mismatch", exceptions.ResourcesMismatchError("asked for 2 nodes"), "2 nodes"),
    ("setup", exceptions.ClusterSetUpError("exit code 1"), "log"),
    ("cancelled", exceptions.RequestCancelled("cancelled by another process"), "cancelled"),
    ("bad_task", ValueError("Invalid task YAML: Found unsupported field 'bogus'."), "'bogus'"),
    ("secret_missing", RuntimeError("No value available for secret(s): TOK. A secret with no inline value"), "TOK"),
    ("storage", exceptions.StorageBucketGetError("no such bucket"), "resources.storage"),
    ("not_allowed", exceptions.UserRequestRejectedByPolicy("no spot"), "API server"),
]


@pytest.mark.parametrize(("kind", "error", "words"), UNREACHABLE)
def test_what_says_nothing_of_the_job_is_asked_again(kind: str, error: Exception, words: str) -> None:
    assert find_fault(error).kind == kind
    ours = translate(error)
    assert type(ours) is ComputeUnreachable
    assert words in str(ours)
    assert ours.hint


@pytest.mark.parametrize(("kind", "error", "words"), REFUSED)
def test_what_will_not_be_done_is_refused_with_the_next_step(kind: str, error: Exception, words: str) -> None:
    ours = translate(error)
    assert isinstance(ours, SkyRefused)
    assert (ours.kind, ours.exit_code) == (kind, 3)
    assert words in str(ours)
    assert ours.hint.endswith(".")


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ClusterDoesNotExist("Cluster 'x' does not exist."),
        exceptions.ClusterNotUpError("Cluster 'x' is not up."),
    ],
)
def test_a_cluster_that_is_not_there_is_gone(error: Exception) -> None:
    assert isinstance(translate(error), Gone)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError('Failed to get request 1a2b: 404 {"detail":"not found"}'),
        exceptions.ClientError("Failed to stream logs: the request or log path was not found or is not accessible"),
    ],
)
def test_a_request_that_is_unknown_after_a_restart_is_lost(error: Exception) -> None:
    assert isinstance(translate(error), RequestLost)


def test_of_a_launch_that_is_over_an_unknown_error_is_the_answer() -> None:
    """Asking it again for ever would leave the job launching for ever."""
    ours = translate_outcome(RuntimeError("something new"))
    assert isinstance(ours, SkyRefused)
    assert ours.kind == "launch_failed"
    assert isinstance(translate_outcome(exceptions.RequestInterruptedError("restarted")), RequestLost)


def test_messages_are_one_line_and_hold_no_secret_and_no_traceback() -> None:
    learn(["correct-horse-battery"])
    text = "├── No:\n└── correct-horse-battery \x1b[31mred\x1b[0m\nTraceback (most recent call last):\n  File"
    message = str(translate(ValueError(text)))
    assert "\n" not in message
    assert "Traceback" not in message
    assert "correct-horse-battery" not in message
    assert "[hidden] red" in message
    assert not re.search(r"[├└\x1b]", message)


def test_each_row_of_the_table_can_be_met() -> None:
    met = {find_fault(error).kind for _, error, _ in (*UNREACHABLE, *REFUSED)}
    others = {"cluster_gone", "cluster_not_up", "request_lost", "command"}
    assert {row.kind for row in FAULTS} == met | others

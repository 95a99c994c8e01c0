"""The process that asks SkyPilot: real, against API servers that hang, fail, or are not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from ainfinity.compute import ask
from ainfinity.compute.remote.rows import ClusterRow, GivenRow, ManagedRow
from ainfinity.compute.remote.sky_rows import candidates
from ainfinity.core.exceptions import NotFound, UsageError

#: Far more than anything takes, for a machine that is busy with other things.
PATIENCE = 120.0
HEALTHY = {"status": "healthy", "version": "0.14.1", "api_version": "1", "user": {"name": "ann"}}

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def server(answer: Answer) -> Generator[str]:
    """An API server on loopback that answers every request in one way."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def do_POST(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            return

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}"
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def say(status: int, body: Any) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)

    return answer


def trickle(over: threading.Event) -> Answer:
    """Never stop talking, and never say anything: no limit of one read ends that."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while not over.wait(0.05):
            try:
                request.wfile.write(b" ")
            except OSError:
                return

    return answer


def hang(over: threading.Event) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        over.wait(PATIENCE)

    return answer


@pytest.fixture
def over() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def run(home: Path, endpoint: str, *words: str, given: str = "") -> tuple[int, dict[str, Any]]:
    """Run the process in a home of its own; return its exit code and the one line that it wrote."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AINFINITY_", "SKYPILOT_"))}
    done = subprocess.run(
        [sys.executable, "-m", "ainfinity.compute.ask", *words],
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=kept
        | {"HOME": str(home), "SKYPILOT_API_SERVER_ENDPOINT": endpoint, "AINFINITY_DATA_DIR": str(home / "data")},
    )
    (line,) = done.stdout.splitlines()
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(line)


def test_a_healthy_server_is_told_of(tmp_path: Path) -> None:
    with server(say(200, HEALTHY)) as endpoint:
        code, reply = run(tmp_path, endpoint, "health")
    assert code == 0
    assert (reply["value"]["problem"], reply["value"]["version"], reply["value"]["user"]) == ("", "0.14.1", "ann")


def test_that_no_server_is_there_is_an_answer_and_starts_none(tmp_path: Path) -> None:
    code, reply = run(tmp_path, "http://127.0.0.1:1", "health")
    assert code == 0
    assert not reply["value"]["reachable"]
    assert "No API server answers" in reply["value"]["problem"]


@pytest.mark.parametrize("question", ["gpus", "adoptable", "price"])
def test_without_a_server_a_question_fails_in_words_and_starts_none(tmp_path: Path, question: str) -> None:
    before = {process.pid for process in psutil.process_iter()}
    code, reply = run(tmp_path, "http://127.0.0.1:1", question, given='{"task": {}}')
    assert (code, reply["error"]["code"]) == (4, "compute_unreachable")
    assert reply["error"]["hint"]
    started = [process for process in psutil.process_iter() if process.pid not in before]
    assert not [one for one in started if "sky.server" in " ".join(words_of(one))]


def words_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [(500, b"broken", "answers 500"), (503, b"", "answers 503"), (401, b"", "login"), (200, b"<html>", "no SkyPilot")],
)
def test_a_server_that_fails_is_an_error_in_words(tmp_path: Path, status: int, body: bytes, words: str) -> None:
    with server(say(status, body)) as endpoint:
        code, reply = run(tmp_path, endpoint, "gpus")
    assert (code, reply["error"]["code"]) == (4, "compute_unreachable")
    assert words in reply["error"]["message"]


@pytest.mark.parametrize("how", [hang, trickle])
def test_a_server_that_hangs_is_given_up_within_the_limit(
    tmp_path: Path, over: threading.Event, how: Callable[[threading.Event], Answer]
) -> None:
    with server(how(over)) as endpoint:
        began = time.monotonic()
        code, reply = run(tmp_path, endpoint, "gpus", "--limit", "3")
        took = time.monotonic() - began
        over.set()
    assert (code, reply["error"]["code"]) == (4, "compute_unreachable")
    assert "did not answer within" in reply["error"]["message"]
    assert took < PATIENCE / 2


def test_a_server_that_is_well_and_then_hangs_is_given_up_too(tmp_path: Path, over: threading.Event) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        (say(200, HEALTHY) if request.path.startswith("/api/health") else hang(over))(request)

    with server(answer) as endpoint:
        code, reply = run(tmp_path, endpoint, "adoptable", "--limit", "8")
        over.set()
    assert (code, reply["error"]["code"]) == (4, "compute_unreachable")


@pytest.mark.parametrize("given", ["{", "[]", "1"])
def test_arguments_that_are_none_are_refused(tmp_path: Path, given: str) -> None:
    with server(say(200, HEALTHY)) as endpoint:
        code, reply = run(tmp_path, endpoint, "gpus", given=given)
    assert (code, reply["error"]["code"]) == (2, UsageError.code)


def test_a_server_elsewhere_is_never_started(tmp_path: Path) -> None:
    code, reply = run(tmp_path, "http://127.0.0.1:1", "start")
    assert code == 3
    assert "not on this machine" in reply["error"]["message"]


# --- what is made of SkyPilot's words ------------------------------------------------------------


class Sky:
    """Stands for the gateway in the pure part."""

    def __init__(self) -> None:
        self.rows = [
            ClusterRow("mine", "UP", infra="slurm/x", given="1x CPU slurm/x", launched_at=100.0),
            ClusterRow("ain-0a1b2c3d-abcdefghij-a1", "UP"),
            ClusterRow("ain-99999999-abcdefghij-a1", "UP"),
            ClusterRow("of-a-managed-job", "UP", is_managed=True),
        ]
        self.jobs = [
            ManagedRow(7, "theirs", "RUNNING", cluster="theirs-7", started_at=50.0),
            ManagedRow(8, "done", "SUCCEEDED", is_done=True),
            ManagedRow(9, "broken", "FAILED", ended_at=60.0),
            ManagedRow(10, "ain-0a1b2c3d-klmnopqrst-a2", "RECOVERING"),
        ]

    def clusters(self, names: Any = None) -> list[ClusterRow]:
        return [row for row in self.rows if names is None or row.name in names]

    def managed_jobs(self, *, ids: Any = None, name: str = "") -> list[ManagedRow]:
        return [row for row in self.jobs if (ids is None or row.id in ids) and name in row.name]

    def given(self, clusters: list[str]) -> dict[str, GivenRow]:
        return {name: GivenRow(name, "", 2.0) for name in clusters if name in ("mine", "theirs-7")}

    def ssh_config(self, cluster: str) -> str:
        return f"Host {cluster}\n  User x\n\nHost {cluster}-worker1\n  User x\n"


def test_orphans_are_all_machines_of_the_prefix() -> None:
    found = ask.orphans(Sky(), {"prefix": "ain-0a1b2c3d-"}, 1.0)  # type: ignore[arg-type]
    assert [(one["kind"], one["name"]) for one in found] == [
        ("cluster", "ain-0a1b2c3d-abcdefghij-a1"),
        ("managed", "ain-0a1b2c3d-klmnopqrst-a2"),
    ]
    assert {one["price_per_hour"] for one in found} == {None}


def test_what_plain_sky_started_can_be_adopted_and_no_other_installations() -> None:
    found = ask.adoptable(Sky(), {}, 1.0)  # type: ignore[arg-type]
    assert [(one["kind"], one["ident"], one["price_per_hour"]) for one in found] == [
        ("cluster", "mine", 2.0),
        ("managed", "7", 2.0),
    ]
    with_ours = ask.adoptable(Sky(), {"prefix": "ain-0a1b2c3d-"}, 1.0)  # type: ignore[arg-type]
    assert {one["name"] for one in with_ours} == {
        "mine",
        "theirs",
        "ain-0a1b2c3d-abcdefghij-a1",
        "ain-0a1b2c3d-klmnopqrst-a2",
    }


@pytest.mark.parametrize(
    ("name", "node", "host"),
    [("mine", 0, "mine"), ("mine", 1, "mine-worker1"), ("cluster:mine", 0, "mine"), ("managed:7", 0, "theirs-7")],
)
def test_the_way_into_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, node: int, host: str
) -> None:
    monkeypatch.setenv("AINFINITY_DATA_DIR", str(tmp_path))
    found = ask.ssh(Sky(), {"name": name, "node": node}, 1.0)  # type: ignore[arg-type]
    assert found["host"] == host
    config = Path(found["config"])
    assert f"Host {host}\n" in config.read_text()
    assert config.stat().st_mode & 0o077 == 0


def test_a_node_that_is_not_there_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AINFINITY_DATA_DIR", str(tmp_path))
    with pytest.raises(NotFound, match="no node 5"):
        ask.ssh(Sky(), {"name": "mine", "node": 5}, 1.0)  # type: ignore[arg-type]


TABLE = """\
<sky-payload>"<rich_start>[bold cyan]Optimizing[/]</rich_start>"</sky-payload>
Considered resources (2 nodes):
-------------------------------------------------------------------------------------
 INFRA              INSTANCE           vCPUs   Mem(GB)   GPUS     COST ($)   CHOSEN
-------------------------------------------------------------------------------------
 Slurm (loopback)   -                  32      128       H100:8   40.00
 AWS (us-east-1)    p5.48xlarge        192     2048      H100:8   1,196.64   \x1b[32m   ✔\x1b[0m
 Slurm (loopback)   -                  4       4         -        0.00
 GCP (us-central1)  n2-standard-4      4       16        -        0.38
-------------------------------------------------------------------------------------
"""


def test_the_optimizers_table_is_read_with_its_choice_first() -> None:
    rows = candidates(TABLE)
    assert [(row.infra, row.instance, row.price_per_hour) for row in rows] == [
        ("aws/us-east-1", "p5.48xlarge", 1196.64),
        ("slurm/loopback", "", 40.0),
        ("slurm/loopback", "", None),  # 0 is a price that nobody told
        ("gcp/us-central1", "n2-standard-4", 0.38),
    ]
    assert [row.given for row in rows][:2] == ["2x H100:8 aws/us-east-1", "2x H100:8 slurm/loopback"]
    assert candidates("Traceback\n") == []

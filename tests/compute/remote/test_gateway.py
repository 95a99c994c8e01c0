"""The gateway against servers that are away, slow or odd: every call ends in time, and none starts a server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ainfinity.compute.remote.health import ask_health, find_endpoint, is_local
from ainfinity.compute.remote.limits import Limits, limited_adapter
from ainfinity.compute.remote.rows import RequestLost
from ainfinity.core.exceptions import ComputeUnreachable

requests = pytest.importorskip("requests")

HEALTHY = {"status": "healthy", "version": "0.14.1", "api_version": "50", "commit": "c", "user": {"name": "ann"}}


class Server(ThreadingHTTPServer):
    """Answers each path with what a test wants, after a while if it wants that."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.body: bytes = json.dumps(HEALTHY).encode()
        self.leave = threading.Event()
        self.hangs = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        if self.server.hangs:
            self.server.leave.wait(60)
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.leave.set()
    server.shutdown()
    server.server_close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Health.


def test_a_server_that_is_well(server: Server) -> None:
    health = ask_health(server.url, 10)
    assert (health.problem, health.reachable, health.version, health.user) == ("", True, "0.14.1", "ann")


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b"", "sky api login"),
        (503, b"", "answers 503"),
        (200, b"<html>", "no SkyPilot API server"),
        (200, b"[1]", "no SkyPilot API server"),
        (200, json.dumps({"status": "needs_auth"}).encode(), "sky api login"),
        (200, json.dumps({"status": "version_mismatch"}).encode(), "version_mismatch"),
    ],
)
def test_a_server_that_is_not(server: Server, status: int, body: bytes, words: str) -> None:
    server.status, server.body = status, body
    health = ask_health(server.url, 10)
    assert health.reachable
    assert words in f"{health.problem} {health.hint}"


def test_no_server_is_told_from_a_slow_one(server: Server) -> None:
    server.hangs = True
    slow = ask_health(server.url, 0.3)
    assert slow.reachable, "one that is slow must never be started a second time"
    assert "within" in slow.problem
    away = ask_health(f"http://127.0.0.1:{free_port()}", 10)
    assert not away.reachable
    assert "refused" in away.problem.lower()


def test_the_address_is_found_as_skypilot_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "config.yaml"
    monkeypatch.setenv("SKYPILOT_GLOBAL_CONFIG", str(settings))
    assert find_endpoint({}) == "http://127.0.0.1:46580"
    assert find_endpoint({"SKYPILOT_API_SERVER_LOCAL_PORT": "1234"}) == "http://127.0.0.1:1234"
    settings.write_text("api_server: {endpoint: 'https://sky.example/'}\n")
    assert find_endpoint({}) == "https://sky.example"
    assert find_endpoint({"SKYPILOT_API_SERVER_ENDPOINT": "http://other:1/"}) == "http://other:1"
    settings.write_text(": not yaml [")
    assert find_endpoint({}) == "http://127.0.0.1:46580"
    assert find_endpoint({"SKYPILOT_API_SERVER_ENDPOINT": "odd"}) == "odd"
    assert not ask_health("odd", 1).reachable or ask_health("odd", 1).problem


def test_only_the_server_of_this_machine_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SKYPILOT_API_SERVER_LOCAL_PORT", raising=False)
    assert is_local("http://127.0.0.1:46580")
    assert not is_local("http://127.0.0.1:8080")
    assert not is_local("https://sky.example")


def test_a_password_in_the_address_is_not_shown() -> None:
    health = ask_health(f"http://ann:correct-horse@127.0.0.1:{free_port()}", 5)
    assert "correct-horse" not in repr(health)


# Limits.


@pytest.fixture
def limits() -> Limits:
    return Limits()


@pytest.fixture
def session(limits: Limits) -> Any:
    session = requests.Session()
    session.mount("http://", limited_adapter(limits))
    return session


def test_a_server_that_hangs_is_given_up_in_time(server: Server, session: Any, limits: Limits) -> None:
    server.hangs = True
    begun = time.monotonic()
    with pytest.raises(ComputeUnreachable, match="did not answer within"), limits.set(0.5):
        session.get(f"{server.url}/status", timeout=(5, None))  # as SkyPilot's client asks: without an end
    assert time.monotonic() - begun < 30


def test_limits_are_nested_and_each_threads_own(limits: Limits) -> None:
    seen: list[float | None] = []
    with limits.set(100.0, 7.0):
        assert limits.left() == 7.0
        with limits.set(1.0):
            assert (limits.left() or 0) <= 1.0
        assert limits.left() == 7.0
        thread = threading.Thread(target=lambda: seen.append(limits.left()))
        thread.start()
        thread.join()
    assert (seen, limits.left()) == ([None], None)


def test_no_server_says_so_in_words(session: Any) -> None:
    with pytest.raises(ComputeUnreachable, match="cannot be reached: Connection refused"):
        session.get(f"http://127.0.0.1:{free_port()}/status")


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_that_answers_5xx_does_not_answer(server: Server, session: Any, status: int) -> None:
    server.status = status
    with pytest.raises(ComputeUnreachable, match=f"answered {status}"):
        session.get(f"{server.url}/status")


def test_of_a_result_500_is_an_answer_and_404_a_lost_request(server: Server, session: Any) -> None:
    server.status = 500
    assert session.get(f"{server.url}/api/get?request_id=1").status_code == 500
    server.status = 404
    with pytest.raises(RequestLost):
        session.get(f"{server.url}/api/get?request_id=1")
    assert session.get(f"{server.url}/other").status_code == 404


# Nothing starts a server.

_CALLS = """
import sys, json
from ainfinity.compute.skypilot import SkyPilot
from ainfinity.core.exceptions import ComputeUnreachable
sky, told = SkyPilot(), []
for call in (sky.clusters, sky.managed_jobs, sky.requests, lambda: sky.queue("x"), lambda: sky.down("x"),
             lambda: sky.launch({"run": "true"}, "x", {}), lambda: list(sky.tail("x", 1)),
             lambda: list(sky.tail_request("x"))):
    try:
        call()
        told.append("no error")
    except ComputeUnreachable as error:
        told.append(str(error))
import sky.server.common as common
wished = []
if sys.argv[1] == "control":
    import requests
    import sky.server.rest as rest
    common._start_api_server = lambda *arguments: wished.append("start")
    rest._session.mount("http://", requests.adapters.HTTPAdapter())
    common.get_api_server_status_response.cache_clear()
    common.check_server_healthy_or_start_fn()
print(json.dumps([told, wished]))
"""


@pytest.mark.parametrize("kind", ["guarded", "control"])
def test_no_call_starts_a_server_where_none_answers(tmp_path: Path, kind: str) -> None:
    """The control: SkyPilot's client by itself wants to start one."""
    pytest.importorskip("sky")
    port = free_port()
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "SKYPILOT_API_SERVER_LOCAL_PORT": str(port),
        "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
    }
    environment.pop("SKYPILOT_API_SERVER_ENDPOINT", None)
    ran = subprocess.run(
        [sys.executable, "-c", _CALLS, kind], env=environment, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    told, wished = json.loads(ran.stdout.strip().splitlines()[-1])
    assert len(told) == 8
    assert all("cannot be reached: Connection refused" in text for text in told), told
    assert wished == (["start"] if kind == "control" else [])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0

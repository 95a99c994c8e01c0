"""A home of its own for each test, and ways to run the command line in it: in this process, or as a real one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest

from ainfinity.cli import json_models, main, session
from ainfinity.core import redact
from ainfinity.core.config import Settings, load_settings
from ainfinity.schema.actor import local_actor
from ainfinity.schema.event import Event
from ainfinity.schema.job_file import load_job_file
from ainfinity.schema.views import JobRow, Progress
from ainfinity.services.training_service import TrainingService
from ainfinity.store import events, lease, progress
from ainfinity.store.store import Store, open_store

#: Far more than anything takes, for a machine that is busy with other things.
PATIENCE = 60.0
COMMAND = [sys.executable, "-c", "from ainfinity.cli.main import main; main()"]
ROWS = '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n' * 2
TRAINER = Path(__file__).with_name("fast_trainer.py")


@dataclass
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    def json(self, model: str) -> Any:
        """Return the document on stdout, validated against its published model."""
        document = json.loads(self.out)
        jsonschema.validate(document, json_models.json_schema(model))
        return document

    def error(self) -> Any:
        """Return the error document on stderr."""
        document = json.loads(self.err.splitlines()[-1])
        jsonschema.validate(document, json_models.json_schema("error"))
        return document["error"]


@dataclass
class Home:
    """Folders and environment of one imaginary user."""

    path: Path
    environment: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        own = {key: value for key, value in os.environ.items() if not key.startswith("AINFINITY_")}
        self.environment = own | {
            "AINFINITY_DATA_DIR": str(self.path / "data"),
            "AINFINITY_CONFIG_DIR": str(self.path / "config"),
            "AINFINITY_TICK": "0.1",
            "COLUMNS": "200",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        (self.path / "work").mkdir(parents=True)
        (self.path / "work" / "rows.jsonl").write_text(ROWS)
        self.interpreter.write_text(
            f'#!/bin/sh\ncase "$*" in *torch.distributed.run*) set -- -S {TRAINER} "$@";; esac\n'
            f'exec {sys.executable} "$@"\n'
        )
        self.interpreter.chmod(0o755)
        self.job_file()

    @property
    def work(self) -> Path:
        return self.path / "work"

    @property
    def interpreter(self) -> Path:
        """A Python for `resources.python` that runs the quick trainer instead of torchrun."""
        return self.path / "python"

    @property
    def settings(self) -> Settings:
        return load_settings(self.environment)

    def job_file(self, name: str = "demo", way: str = "ok", extra: str = "") -> Path:
        path = self.work / f"{name}.yaml"
        path.write_text(
            f"name: {name}\nrecipe:\n  model: org/model\n  data: rows.jsonl\n  max_steps: 4\n"
            f"  sample_prompts: [{way}]\nresources: {{python: {self.interpreter}}}\n{extra}"
        )
        return path

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*COMMAND, *arguments],
            env=self.environment | environment,
            cwd=self.work,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )

    def process(self, *arguments: str, stdin: str = "", **environment: str) -> Result:
        """Run the command as a real process without a terminal."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(stdin, timeout=PATIENCE)
        return Result(process.returncode, out, err)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test teach the redactor, or leave a word for Ctrl-C, to another."""
    monkeypatch.setattr(redact, "_known", set())
    monkeypatch.setattr(redact, "_known_pattern", None)
    monkeypatch.setattr(session, "interruption", "")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


Cli = Callable[..., Result]


@pytest.fixture
def cli_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[Home], Cli]:
    """Run the command line in this process, which saves a second each time."""

    def in_home(home: Home) -> Cli:
        for key in [key for key in os.environ if key.startswith("AINFINITY_")]:
            monkeypatch.delenv(key)
        for key, value in home.environment.items():
            monkeypatch.setenv(key, value)
        monkeypatch.chdir(home.work)

        def run(*arguments: str, stdin: str = "") -> Result:
            capsys.readouterr()
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            code = main.run(arguments)
            out, err = capsys.readouterr()
            return Result(code, out, err)

        return run

    return in_home


@pytest.fixture
def cli(home: Home, cli_of: Callable[[Home], Cli]) -> Cli:
    """The command line in a fresh home."""
    return cli_of(home)


@dataclass
class Seed:
    """Writes jobs into a home's database in states of the test's choice. It holds the lease, so that no worker acts."""

    home: Home
    store: Store

    def job(self, name: str = "demo", extra: str = "", *kinds: str) -> JobRow:
        spec = load_job_file(self.home.job_file(name, extra=extra))
        row = TrainingService(self.store).launch_job(spec, f"key-{name}-{time.time_ns()}", local_actor())
        for kind in kinds:
            self.event(row, kind)
        return row

    def event(self, row: JobRow, kind: str, attempt: int | None = None, **data: Any) -> None:
        if attempt is None:
            attempt = 1 if kind.startswith(("attempt.", "trainer.")) else 0
        if kind == "attempt.intended":
            data = {"name": f"ain-00000000-{row.id}-a1", "backend": "local"} | data
        with self.store.write() as connection:
            events.append(connection, [Event(kind, row.id, time.time(), "engine", attempt, data)], self.store.places)

    def running(self, name: str = "demo", extra: str = "") -> JobRow:
        row = self.job(name, extra, "attempt.intended", "attempt.launched", "attempt.running")
        with self.store.write() as connection:
            progress.put(connection, row.id, Progress(step=3, total_steps=12, loss=1.25, eta_seconds=90.0))
        return row

    def over(self, state: str, name: str = "demo", **data: Any) -> JobRow:
        row = self.running(name)
        if state == "cancelled":
            self.event(row, "job.cancel_requested")
        self.event(row, f"attempt.{state}", exit_code=0 if state == "succeeded" else 1)
        self.event(row, f"job.{state}", **data)
        return row

    def log(self, row: JobRow, text: str) -> None:
        folder = self.home.settings.attempts_dir / f"ain-00000000-{row.id}-a1"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log.txt").write_text(text)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the schema and no job; making one costs more than most tests here."""
    settings = Home(tmp_path_factory.mktemp("template") / "home").settings
    open_store(settings).close()
    assert settings.sqlite_path is not None
    return settings.sqlite_path


@pytest.fixture
def with_database(home: Home, empty_database: Path) -> None:
    """Give the home an empty database."""
    home.settings.data_dir.mkdir(mode=0o700)
    shutil.copy(empty_database, home.settings.data_dir / empty_database.name)


@pytest.fixture
def seed(home: Home, with_database: None) -> Iterator[Seed]:
    store = open_store(home.settings)
    with store.write() as connection:
        lease.acquire(connection, "engine", "elsewhere:1:test", time.time(), 3600.0)
    yield Seed(home, store)
    store.close()


@pytest.fixture(scope="module")
def busy_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with a real worker, which the first launch starts."""
    home = Home(tmp_path_factory.mktemp("busy") / "home")
    home.environment["AINFINITY_LOCAL_SLOTS"] = "4"
    yield home
    for row in json.loads(home.process("list", "--state", "live", "--json").out):
        home.process("cancel", row["id"])
        home.process("wait", row["id"])
    _end_worker(home)


def _end_worker(home: Home) -> None:
    status = json.loads(home.process("worker", "status", "--json").out)
    if status["alive"]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(status["holder"].split(":")[1]))
            process.terminate()
            process.wait(PATIENCE)


def wait_for(condition: Callable[[], Any]) -> Any:
    """Return the first true answer of `condition`."""
    give_up = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < give_up
        time.sleep(0.02)
    return found


@pytest.fixture(name="wait_for")
def _wait_for() -> Callable[[Callable[[], Any]], Any]:
    return wait_for


@pytest.fixture
def in_terminal(home: Home) -> Callable[..., Result]:
    """Run the command as a real process on a terminal of its own; what both streams show comes as `out`."""

    def run(*arguments: str, answer: str = "", prompt: str = "", **environment: str) -> Result:
        return run_in_terminal(home, arguments, answer, prompt, environment)

    return run


def run_in_terminal(
    home: Home, arguments: Sequence[str], answer: str, prompt: str, environment: dict[str, str]
) -> Result:
    import pty
    import select

    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        env=home.environment | {"TERM": "xterm-256color"} | environment,
        cwd=home.work,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    shown = b""
    give_up = time.monotonic() + PATIENCE
    try:
        while time.monotonic() < give_up:
            if select.select([controller], [], [], 0.1)[0]:
                try:
                    shown += os.read(controller, 65536)
                except OSError:  # the other end is closed
                    break
            if answer and prompt.encode() in shown:
                os.write(controller, answer.encode())
                answer = ""
        return Result(process.wait(PATIENCE), shown.decode(errors="replace"), "")
    finally:
        os.close(controller)
        if process.poll() is None:
            process.kill()
            process.wait()

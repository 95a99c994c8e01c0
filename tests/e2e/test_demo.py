"""`make demo` without a terminal, from the Makefile to the adapter's weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from scripts.demo import MIN_FALL, Lesson, describe

ROOT = Path(__file__).parents[2]
AINFINITY = str(Path(sys.executable).with_name("ainfinity"))
Ask = Callable[..., Any]


def environment(data: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AINFINITY_", "MAKE", "MFLAGS"))}
    return kept | {"AINFINITY_DATA_DIR": str(data), "AINFINITY_CONFIG_DIR": str(data / "config")}


def processes_of(data: Path) -> Iterator[psutil.Process]:
    """What runs with this data folder in its environment, or for an attempt in it."""
    for process in psutil.process_iter():
        try:
            found = process.environ()
            if found.get("AINFINITY_DATA_DIR") == str(data) or any(str(data) in word for word in process.cmdline()):
                yield process
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    data = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        ["make", "demo"], cwd=ROOT, env=environment(data), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    print(done.stderr, done.stdout)
    return done, data


@pytest.fixture
def ask(demo: tuple[subprocess.CompletedProcess[str], Path]) -> Ask:
    def run(*words: str) -> Any:
        argv = [AINFINITY, *words, "--json"]
        done = subprocess.run(argv, env=environment(demo[1]), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.mark.e2e
@pytest.mark.timeout(1800)
class TestDemo:
    def test_it_learns_and_says_so(self, demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
        done, _ = demo
        assert done.returncode == 0, done.stderr + done.stdout
        for words in ("The model learned.", "held-out loss", "answer before", "answer after", "adapter", "first loss"):
            assert words in done.stdout

    def test_it_prints_progress(self, demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
        assert "step 16/16" in demo[0].stderr
        assert "\x1b" not in demo[0].stderr, "no cursor movements without a terminal"

    def test_two_ranks_trained_on_cpu(self, ask: Ask) -> None:
        started = [event["data"] for event in ask("events", "demo") if event["type"] == "trainer.started"]
        assert [(data["world_size"], data["device"]) for data in started] == [(2, "cpu")]

    def test_the_job_and_its_only_attempt_succeeded(self, ask: Ask) -> None:
        detail = ask("show", "demo")
        assert detail["job"]["state"] == "succeeded"
        assert [attempt["state"] for attempt in detail["attempts"]] == ["succeeded"]

    def test_sixteen_steps_have_metrics(self, ask: Ask) -> None:
        points = ask("metrics", "demo")
        assert [point["step"] for point in points] == list(range(1, 17))
        assert all(point["values"]["loss"] > 0 for point in points)

    def test_the_adapter_holds_trained_weights(self, ask: Ask) -> None:
        from safetensors.numpy import load_file

        (folder,) = {found["path"] for found in ask("show", "demo")["artifacts"] if found["kind"] == "adapter"}
        weights = load_file(Path(folder) / "adapter_model.safetensors")
        second = [value for name, value in weights.items() if "lora_B" in name]
        assert second, "B starts at zero: what is not zero was trained"
        assert all(abs(value).sum() > 0 for value in second)
        assert json.loads((Path(folder) / "adapter_config.json").read_text())["r"] == 8

    def test_pull_copies_the_adapter(self, demo: tuple[subprocess.CompletedProcess[str], Path], tmp_path: Path) -> None:
        argv = [AINFINITY, "pull", "demo", "adapter", "--to", str(tmp_path)]
        done = subprocess.run(argv, env=environment(demo[1]), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert list(tmp_path.rglob("adapter_model.safetensors"))

    def test_nothing_is_left_running(self, demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
        for _ in range(300):  # the worker goes by itself some seconds after the last job
            left = list(processes_of(demo[1]))
            if not left:
                return
            time.sleep(0.1)
        pytest.fail(f"left running: {[process.cmdline() for process in left if process.is_running()]}")

    def test_control_a_process_of_the_demo_would_be_seen(
        self, demo: tuple[subprocess.CompletedProcess[str], Path]
    ) -> None:
        with subprocess.Popen(["sleep", "60"], env=environment(demo[1])) as sleeper:
            seen = [process.pid for process in processes_of(demo[1])]
            sleeper.kill()
        assert sleeper.pid in seen

    def test_set_up_is_not_repeated(self) -> None:
        done = subprocess.run(["make", "-q", ".venv/.ready"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, "make would install again"


def lesson(before: float | None, after: float | None) -> Lesson:
    return Lesson(
        job="demo", before=before, after=after, question="q", answer_before="a\nb", answer_after="c", adapter="/x",
        first_loss_at=1065.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "learned"),
    [(3.3, 2.65, True), (3.3, 3.3 - MIN_FALL, True), (3.3, 2.9, False), (3.3, 3.301, False), (None, 2.6, False)],
)
def test_verdict(before: float | None, after: float | None, learned: bool) -> None:
    assert lesson(before, after).learned == learned


def test_description_tells_all_and_stays_on_one_line_each() -> None:
    text = describe(lesson(3.3, 2.6), 1000.0)
    assert "3.300 before, 2.600 after" in text
    assert "1 min 5 s" in text
    assert "a b" in text

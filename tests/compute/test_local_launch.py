"""A launch happens once, is seen by everyone, and leaks and shadows nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ainfinity.compute import launcher
from ainfinity.compute.trainer import make_environment
from ainfinity.core.exceptions import ComputeUnreachable, MissingTool, Refused
from ainfinity.domain.observation import Phase
from tests.compute.place import ACTOR, NAME, Place, is_alive, run_python, wait_for

CANARY = "canary-7f3a91c2"


def test_launching_twice_runs_one_process(place: Place) -> None:
    compute = place.backend()
    request = place.request()
    assert compute.launch(request) == compute.launch(request)
    place.started()
    compute.launch(request)
    place.finish(3)
    seen = place.until_over(compute)
    assert (seen.phase, seen.exit_code, seen.reason) == (Phase.EXITED, 3, "")
    compute.launch(request)
    assert place.until_over(compute) == seen
    assert len(place.notes("starts")) == 1


def test_many_workers_launching_at_once_run_one_process(place: Place) -> None:
    backends = [place.backend() for _ in range(6)]
    with ThreadPoolExecutor(len(backends)) as pool:
        handles = set(pool.map(lambda backend: backend.launch(place.request()), backends))
    assert len(handles) == 1
    place.started()
    # Every other supervisor has come, found the claim, and gone.
    wait_for(lambda: sum(len(b._launcher._supervisors) for b in backends if b.observe_all()) <= 1)
    assert len(place.notes("starts")) == 1


def test_control_without_the_claim_there_are_two(place: Place) -> None:
    compute = place.backend()
    compute.launch(place.request())
    place.started()
    (place.folder() / "claim.json").rename(place.folder() / "claim.hidden")
    compute.launch(place.request())
    wait_for(lambda: len(place.notes("starts")) == 2)
    (place.folder() / "claim.hidden").rename(place.folder() / "claim.json")
    place.finish()
    wait_for(lambda: not place.alive())


WORKER = """
import json, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.compute.place import Place
place = Place(Path(sys.argv[1]))
place.backend().launch(place.request(recipe=json.loads(sys.argv[3])))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_fresh_worker_adopts_what_a_killed_one_launched(place: Place) -> None:
    root = str(Path(__file__).parents[2])
    argv = [sys.executable, "-c", WORKER, str(place.root), root, json.dumps({"lines": ["hello"]})]
    done = subprocess.run(argv, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    place.names.add(NAME)
    compute = place.backend()
    assert place.see(compute) is not None, "it is known from the moment it is launched"
    place.started()
    seen = place.until(compute, Phase.RUNNING)
    assert seen.handle == compute.launch(place.request())
    wait_for(lambda: list(compute.read_lines({NAME: 0})[NAME].lines) == ["hello"])
    place.finish(0)
    assert place.until_over(compute).exit_code == 0
    assert len(place.notes("starts")) == 1


def half_launch(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Launch as a worker does that dies before it starts the supervisor."""

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(launcher.Launcher, "_spawn", die)
        with pytest.raises(Killed):
            place.backend().launch(place.request())


def test_a_launch_cut_short_is_absent_and_can_be_repeated(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    half_launch(place, monkeypatch)
    compute = place.backend()
    seen = place.see(compute)
    assert seen is not None
    assert (seen.phase, seen.machine) == (Phase.SETTING_UP, True), "it may be about to start"
    place.clock.ahead = 6
    assert place.see(compute) is None
    compute.launch(place.request())
    place.started()
    place.finish()
    assert place.until_over(compute).exit_code == 0


def test_a_stop_before_the_start_prevents_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    half_launch(place, monkeypatch)
    compute = place.backend()
    compute.stop(NAME)
    seen = place.see(compute)
    assert seen is not None
    assert (seen.phase, seen.machine, seen.reason) == (Phase.EXITED, False, "stopped before it began")
    compute.launch(place.request())
    supervisor = subprocess.run(
        [sys.executable, "-m", "ainfinity.compute.supervisor", str(place.folder())], check=False, timeout=60
    )
    assert supervisor.returncode == 0
    assert place.see(compute) == seen
    assert not place.notes("starts")


def test_a_stop_of_what_was_never_requested_prevents_a_late_launch(place: Place) -> None:
    compute = place.backend()
    compute.stop(NAME)
    compute.launch(place.request())
    seen = place.see(compute)
    assert seen is not None
    assert (seen.phase, seen.machine) == (Phase.EXITED, False)
    assert not place.notes("starts")


def test_a_supervisor_that_cannot_start_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = place.root / "broken" / "ainfinity"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('this installation is damaged')")
    monkeypatch.setattr(launcher, "supervisor_path", lambda _: str(broken.parent))
    compute = place.backend()
    compute.launch(place.request())
    wait_for(lambda: not compute._launcher._supervisors or compute._launcher.reap())
    place.clock.ahead = 6
    seen = place.see(compute)
    assert seen is not None
    assert (seen.phase, seen.machine, seen.reason) == (Phase.EXITED, False, "its supervisor could not start")
    assert "this installation is damaged" in compute.read_lines({NAME: 0})[NAME].lines[-1]
    with pytest.raises(Refused, match="could not start"):
        compute.launch(place.request())


def test_secrets_reach_the_process_and_no_file(place: Place) -> None:
    compute = place.backend()
    compute.launch(place.request(secrets={"HF_TOKEN": CANARY}, env={"WANDB_KEY": CANARY}))
    place.started()
    environment = json.loads((place.control() / "environment").read_text())
    assert environment["HF_TOKEN"] == environment["WANDB_KEY"] == CANARY
    place.finish()
    place.until_over(compute)
    files = [path for path in place.settings.data_dir.rglob("*") if path.is_file()]
    assert any(NAME.encode() in path.read_bytes() for path in files), "control: what is written is found"
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


def test_the_environment_of_an_attempt(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AINFINITY_TOKEN", CANARY)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    compute = place.backend()
    compute.launch(place.request(deadline=4e9, resume_step=12))
    place.started()
    environment = json.loads((place.control() / "environment").read_text())
    assert CANARY not in environment.values()
    assert environment["AINFINITY_ATTEMPT"] == NAME
    assert float(environment["AINFINITY_DEADLINE"]) == 4e9
    assert environment["AINFINITY_RESUME_STEP"] == "12"
    assert environment["OMP_NUM_THREADS"] == "3", "what the user set stands"
    assert environment["DS_ACCELERATOR"] == "cpu"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""


def test_where_deepspeed_finds_its_helper(place: Place) -> None:
    tools = place.root / "venv" / "bin"
    request, cache = place.request(python=str(tools / "python")), place.root / "cache"
    key = "TORCH_EXTENSIONS_DIR"
    assert make_environment(request, {}, (), cache)[key] == str(cache / "torch_extensions")
    built = place.root / "venv" / "torch_extensions"
    built.mkdir(parents=True)
    environment = make_environment(request, {"PATH": "/bin"}, (), cache)
    assert environment[key] == str(built)
    assert environment["PATH"] == f"{tools}:/bin", "ninja is looked up on the path"
    assert make_environment(request, {key: "/mine"}, (), cache)[key] == "/mine"


SHOW = "import training, os; print(training.__file__, flush=True)"
FROM_THERE = """
import os, sys
from pathlib import Path
sys.path[:] = [p for p in sys.path if Path(p).absolute() != Path.cwd()] + [sys.argv[2]]
from tests.compute.place import Place
place = Place(Path(sys.argv[1]))
compute = place.backend(command=lambda request, recipe: [sys.executable, "-m", "training.shown"])
compute.launch(place.request())
print(place.until_over(compute))
print(place.folder().joinpath("log.txt").read_text())
"""


def test_a_users_own_packages_do_not_shadow_ours(place: Place) -> None:
    mine = place.root / "mine"
    for package in ("training", "tui", "ainfinity"):
        (mine / package).mkdir(parents=True)
        (mine / package / "__init__.py").write_text("print('SHADOWED', flush=True)")
        (mine / package / "shown.py").write_text("print('SHADOWED', flush=True)")
    control = run_python(SHOW, cwd=mine, env=os.environ | {"PYTHONPATH": "."})
    assert "SHADOWED" in control.stdout, "control: without care the user's package is taken"
    root = str(Path(__file__).parents[2])
    shown = run_python(FROM_THERE, str(place.root), root, cwd=mine, env=os.environ | {"PYTHONPATH": "."})
    place.names.add(NAME)
    assert "SHADOWED" not in shown.stdout
    assert "No module named training.shown" in shown.stdout, "it was looked for in ours"
    assert (place.folder() / "code" / "training" / "recipe.py").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": 2}, "one node"),
        ({"gpus": 1}, "this machine has 0"),
        ({"slots": 9}, "this machine has 8"),
    ],
)
def test_what_can_never_run_is_refused(place: Place, changes: dict[str, int], message: str) -> None:
    compute = place.backend()
    with pytest.raises(Refused, match=message):
        compute.launch(place.request(**changes))
    assert compute.observe_all() == {}


@pytest.mark.parametrize("name", ["", "../x", "a/b", "A", "-a", "a\n", "a" * 65, "live.x"])
def test_names_that_could_lead_elsewhere_are_refused(place: Place, name: str) -> None:
    with pytest.raises(Refused, match="no name of an attempt"):
        place.backend().stop(name)


@pytest.mark.parametrize("python", [sys.executable, "/bin/false", "/no/such/python"])
def test_a_missing_module_or_interpreter_is_named(place: Place, python: str) -> None:
    compute = place.backend(modules=("no_such_module",))
    with pytest.raises(MissingTool) as caught:
        compute.launch(place.request(python=python))
    assert python in caught.value.message
    assert "resources.python" in (caught.value.hint + caught.value.field)
    assert compute.observe_all() == {}


def test_another_interpreter_is_asked_itself(place: Place, tmp_path: Path) -> None:
    other = tmp_path / "venv" / "python"
    other.parent.mkdir()
    other.symlink_to(Path(sys.executable).resolve())
    compute = place.backend(modules=("no_such_module", "json"))
    with pytest.raises(MissingTool, match=f"^no_such_module cannot be imported by {other}"):
        compute.launch(place.request(python=str(other)))


def test_a_command_that_does_not_exist_is_an_exit_with_a_reason(place: Place) -> None:
    compute = place.backend(command=lambda request, recipe: ["/no/such/program"])
    compute.launch(place.request())
    seen = place.until_over(compute)
    assert (seen.phase, seen.exit_code) == (Phase.EXITED, 127)
    assert "/no/such/program" in seen.reason


def test_gpus_are_handed_out_once(place: Place) -> None:
    place.slots = 0
    compute = place.backend(devices=("0", "GPU-7"))
    assert compute.capacity() == 2
    for name in ("one", "two"):
        compute.launch(place.request(name, gpus=1))
        place.started(name)
    with pytest.raises(ComputeUnreachable, match="2 are in use"):
        compute.launch(place.request("three", gpus=1))
    assert "three" not in compute.observe_all()
    compute.launch(place.request("cpu", ranks=2))
    place.started("cpu")
    given = {
        name: json.loads((place.control(name) / "environment").read_text()).get("CUDA_VISIBLE_DEVICES")
        for name in ("one", "two", "cpu")
    }
    assert given == {"one": "0", "two": "GPU-7", "cpu": ""}
    place.finish(name="one")
    place.until_over(compute, "one")
    compute.launch(place.request("three", gpus=1))
    place.started("three")
    assert json.loads((place.control("three") / "environment").read_text())["CUDA_VISIBLE_DEVICES"] == "0"


def test_the_supervisor_is_light(place: Place) -> None:
    code = "import sys, ainfinity.compute.supervisor; print(*sorted(m.partition('.')[0] for m in sys.modules))"
    loaded = set(run_python(code).stdout.split())
    assert not loaded & {"torch", "psutil", "pydantic", "sqlmodel", "platformdirs", "asyncio", "typer"}


def test_the_actor_is_what_runs(place: Place) -> None:
    """Control for all tests here: the process that notes its pid is the one the supervisor started."""
    compute = place.backend()
    compute.launch(place.request())
    place.started()
    pid = int(place.notes("starts")[0])
    assert is_alive(pid)
    assert ACTOR.name in Path(f"/proc/{pid}/cmdline").read_text() if sys.platform == "linux" else True

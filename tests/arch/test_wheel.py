"""An installed wheel works like the checkout: built aside, installed into an environment of its own, run elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("ainfinity", "tui", "bot", "training", "skylaunch", "recipes")
SKIPPED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=SKIPPED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(source / "dist"),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    (built,) = (source / "dist").glob("*.whl")
    return built


class Installed:
    """A virtual environment with nothing of ours but the wheel; the packages it needs come from the tests' own."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        self.bin = folder / "env" / "bin"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True, timeout=120)
        (packages,) = (folder / "env" / "lib").glob("python*/site-packages")
        # A path in a .pth file brings the packages there, but not the .pth files there: not our editable install.
        (packages / "host.pth").write_text("".join(f"{path}\n" for path in site.getsitepackages()))
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install", "-qq"]
        subprocess.run([*pip, "--no-deps", "--no-index", "--force-reinstall", str(wheel)], check=True, timeout=240)
        (folder / "work").mkdir()

    def run(self, program: str, *argv: str) -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": f"{self.bin}:{os.defpath}",
            "HOME": str(self.folder),
            "AINFINITY_DATA_DIR": str(self.folder / "data"),
            "AINFINITY_CONFIG_DIR": str(self.folder / "config"),
        }
        command: Sequence[str] = [str(self.bin / program), *argv]
        work = self.folder / "work"
        return subprocess.run(
            command, cwd=work, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Installed:
    return Installed(tmp_path_factory.mktemp("elsewhere"), wheel)


def test_every_data_file_is_in_the_wheel(wheel: Path) -> None:
    shipped = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted - shipped == set()
    assert "skylaunch/deepspeed.yaml" in shipped
    assert any(name.startswith("recipes/") and name.endswith(".yaml") for name in shipped)


def test_tests_are_not_in_the_wheel(wheel: Path) -> None:
    assert {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()} - {
        name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info" in name
    } <= {*PACKAGES, "ainfinity-0.1.0.dist-info"}


def test_code_comes_from_the_wheel(installed: Installed) -> None:
    done = installed.run(
        "python", "-c", "import ainfinity.core, training, tui, skylaunch; print(ainfinity.core.__file__)"
    )
    assert done.stdout.startswith(str(installed.folder)), done.stderr


def test_recipes_are_found(installed: Installed) -> None:
    done = installed.run("ainfinity", "recipes", "--json")
    assert done.returncode == 0, done.stderr
    names = {recipe["name"] for recipe in json.loads(done.stdout)}
    assert names == {path.stem for path in (ROOT / "recipes").glob("*.yaml")}


def test_dry_run_plans_a_job(installed: Installed) -> None:
    work = installed.folder / "work"
    (work / "chats.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    )
    (work / "job.yaml").write_text("name: from-a-wheel\nrecipe: {model: org/model, data: chats.jsonl}\n")
    done = installed.run("ainfinity", "launch", "job.yaml", "lr=3e-4", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["spec"]["name"] == "from-a-wheel"
    assert answer["spec"]["recipe"]["lr"] == 3e-4
    assert answer["spec"]["recipe"]["data"] == str(work / "chats.jsonl")


def test_task_template_is_found(installed: Installed) -> None:
    code = "from importlib import resources; print(resources.files('skylaunch').joinpath('run.sh').read_text())"
    assert "torch.distributed.run" in installed.run("python", "-c", code).stdout


def test_the_trainer_that_is_sent_is_the_installed_one(installed: Installed) -> None:
    done = installed.run("python", "-c", "from skylaunch.render import trainer_folder; print(trainer_folder())")
    assert done.stdout.startswith(str(installed.folder)), done.stderr
    assert (Path(done.stdout.strip()) / "finetune.py").is_file()

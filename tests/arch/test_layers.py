"""Who may import whom: the contracts of pyproject.toml hold, and a planted violation breaks them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("ainfinity", "tui", "bot", "training", "skylaunch")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    argv = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    env = os.environ | {"PYTHONPATH": str(folder), "NO_COLOR": "1"}
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=240)


def test_contracts_hold() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("tui/planted.py", "from ainfinity.store import database", "The fronts know"),
        ("ainfinity/core/planted.py", "import ainfinity.domain.decide", "The core service is layered"),
        ("training/planted.py", "import ainfinity.core.clock", "training is shipped alone"),
        ("skylaunch/planted.py", "import ainfinity.store.database", "skylaunch knows"),
    ],
)
def test_control_planted_violation_is_found(tmp_path: Path, module: str, line: str, contract: str) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / module).write_text(f"{line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    broken = [text for text in done.stdout.splitlines() if "BROKEN" in text]
    assert len(broken) == 1
    assert contract in broken[0]

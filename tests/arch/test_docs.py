"""What the documents name exists, and what exists is named."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from ainfinity.core.config import Settings

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text())
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert missing == []


def test_every_setting_is_documented() -> None:
    named = set(re.findall(r"`(AINFINITY_[A-Z_]+)`", (ROOT / "docs" / "settings.md").read_text()))
    assert named - {"AINFINITY_*"} == {f"AINFINITY_{field.name.upper()}" for field in fields(Settings)}


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for path in DOCUMENTS for name in re.findall(r"`make ([a-z0-9]+)", path.read_text())}
    assert named - targets == set()


def test_every_command_is_in_the_readme() -> None:
    from ainfinity.cli.app import app

    text = (ROOT / "README.md").read_text()
    names = [
        (command.name or getattr(command.callback, "__name__", "")).strip("_") for command in app.registered_commands
    ]
    names += [str(group.name) for group in app.registered_groups]
    assert [name for name in names if not re.search(rf"`{name}\b|, `{name}|\b{name}\b", text)] == []
    assert len(names) > 15


def test_no_host_of_a_registry_and_no_path_of_a_machine_is_named() -> None:
    suspects = re.compile(r"/work/|/root/|pypi\.org|npmjs|deb\.debian")
    tracked = [
        ROOT / "Makefile",
        ROOT / "constraints.txt",
        ROOT / ".ci" / "run",
        *DOCUMENTS,
        *(ROOT / "scripts").rglob("*.*"),
    ]
    assert [path for path in tracked if path.suffix != ".pyc" and suspects.search(path.read_text())] == []

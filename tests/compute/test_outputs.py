"""What is said to lie in the output folder is believed only after a look."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from ainfinity.compute.outputs import find_fault
from tests.compute.place import NAME, Place

CONTENT = b"weights" * 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "model").write_bytes(CONTENT)
    (tmp_path / "outside").write_bytes(CONTENT)
    return folder


def entry(path: object = "adapter/model", **changes: Any) -> dict[str, Any]:
    return {"path": str(path), "size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()} | changes


def test_what_is_right_has_no_fault(folder: Path) -> None:
    assert find_fault(folder, [entry(), entry(folder / "adapter" / "model")]) == ""


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"path": "adapter/other"}, "is missing"),
        ({"size": 1}, "has 7000 bytes, not 1"),
        ({"sha256": "0" * 64}, "sha256 differs"),
        ({"path": "../outside"}, "lies outside"),
        ({"path": "adapter"}, "Is a directory"),
        ({"size": None}, "not a path with"),
        ({"path": "a\0b"}, "not a path with"),
    ],
)
def test_faults_are_named(folder: Path, changes: dict[str, Any], fault: str) -> None:
    said = find_fault(folder, [entry(), entry(**changes)])
    assert fault in said
    assert said.startswith(str(changes.get("path", "adapter/model")))


def test_a_link_that_leads_outside_is_outside(folder: Path) -> None:
    (folder / "link").symlink_to(folder.parent / "outside")
    assert "lies outside" in find_fault(folder, [entry("link")])
    assert "lies outside" in find_fault(folder, [entry(folder.parent / "outside")])


def test_no_files_are_no_export(folder: Path) -> None:
    assert find_fault(folder, []) == "the attempt named no files"
    assert "not a path with" in find_fault(folder, [{}])


def test_verify_looks_into_the_attempts_output_folder(place: Place) -> None:
    compute = place.backend()
    assert "never launched" in compute.verify(NAME, [entry("x")])
    compute.launch(place.request())
    output = Path(place.request().output_dir)
    assert compute.verify(NAME, [entry("x")]) == "x: is missing"
    (output / "x").write_bytes(CONTENT)
    assert compute.verify(NAME, [entry("x")]) == ""

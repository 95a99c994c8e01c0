"""Sizes, docstrings and layout that the linters do not check."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("ainfinity", "tui", "bot", "training", "skylaunch", "recipes")
LONGEST_FILE = 400
LONGEST_FUNCTION = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def faults_of_size(text: str) -> list[str]:
    found = [f"{len(text.splitlines())} lines"] if len(text.splitlines()) > LONGEST_FILE else []
    for function in functions(ast.parse(text)):
        lines = (function.end_lineno or 0) - function.lineno + 1
        if lines > LONGEST_FUNCTION:
            found.append(f"{function.name}: {lines} lines")
    return found


def _documented_elsewhere(node: ast.ClassDef | Function) -> bool:
    names = {mark.id if isinstance(mark, ast.Name) else getattr(mark, "attr", "") for mark in node.decorator_list}
    return bool(names & {"overload", "override", "setter"})


def undocumented(text: str) -> list[str]:
    """Public modules, classes, functions and methods without a docstring; what lies in a function is private."""
    tree = ast.parse(text)
    found = [] if ast.get_docstring(tree) else ["the module"]

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if not isinstance(node, (ast.ClassDef, *Function.__args__)) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node) and not _documented_elsewhere(node):
                found.append(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")

    visit(tree.body, "")
    return found


@pytest.mark.parametrize("path", sources(*PACKAGES, "scripts", "tests"), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    if "versions" not in path.parts:  # a migration is one list of tables, and never grows
        assert faults_of_size(path.read_text()) == []


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_public_is_documented(path: Path) -> None:
    if "versions" in path.parts:  # a migration's name says what it does
        return
    text = path.read_text()
    if text.strip():
        assert undocumented(text) == []


def test_control_faults_are_seen() -> None:
    long_function = "def f():\n" + "    pass\n" * 60
    assert faults_of_size(long_function) == ["f: 61 lines"]
    assert faults_of_size("#\n" * 401) == ["401 lines"]
    assert undocumented('"""M."""\nclass A:\n    """A."""\n    def b(self): ...\ndef _c(): ...\n') == ["A.b"]
    assert undocumented("x = 1") == ["the module"]


def test_tests_are_no_packages() -> None:
    assert sorted((ROOT / "tests").rglob("__init__.py")) == [], "tests/tui would shadow tui"

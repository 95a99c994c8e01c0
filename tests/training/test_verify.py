"""Reading an export again: what the storage gives back, in a line above all that came before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from training.claim import ClaimedFolder
from training.files import MANIFEST, describe_files
from training.protocol import SEQ_BITS, Line, parse_line


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "output" / "adapter"
    (folder / "nested").mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"weights" * 5000)
    (folder / "nested" / "config.json").write_text("{}")
    files = describe_files(folder)
    (folder / MANIFEST).write_text(json.dumps(files))
    return folder.parent


def verify(output: Path, **environment: str) -> tuple[int, Line]:
    ran = subprocess.run(
        [sys.executable, "-m", "training.verify", str(output)],
        capture_output=True, text=True, timeout=120, env=os.environ | environment,
    )  # fmt: skip
    (text,) = ran.stdout.splitlines()
    line = parse_line(text)
    assert line is not None, ran.stderr
    return ran.returncode, line


def test_what_is_as_its_manifest_says_is_told_with_sizes_and_digests(output: Path) -> None:
    code, line = verify(output)
    assert (code, line.kind) == (0, "verified")
    assert line.data["output"] == str(output / "adapter")
    assert line.data["files"] == json.loads((output / "adapter" / MANIFEST).read_text())


@pytest.mark.parametrize("harm", ["changed", "cut", "removed", "no manifest", "damaged manifest", "nothing", "outside"])
def test_what_is_not_fails_the_run(output: Path, harm: str) -> None:
    weights, manifest = output / "adapter" / "weights.safetensors", output / "adapter" / MANIFEST
    match harm:
        case "changed":
            weights.write_bytes(b"Weights" + weights.read_bytes()[7:])
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-1])
        case "removed":
            weights.unlink()
        case "no manifest":
            manifest.unlink()
        case "damaged manifest":
            manifest.write_text("[{")
        case "nothing":
            (output / "adapter").rename(output / "other")
        case _:
            manifest.write_text(json.dumps([{"path": "../../x", "size": 1, "sha256": "0"}]))
    code, line = verify(output)
    assert (code, line.kind, line.data["code"]) == (1, "failed", "export_invalid")
    assert line.data["hint"]


def test_its_line_comes_after_every_line_of_this_start_and_before_those_of_the_next(
    output: Path, tmp_path: Path
) -> None:
    last = 0
    for restart in range(3):
        ClaimedFolder(tmp_path / "checkpoints", "ain-x-a1", "task").release()
        _, line = verify(output, AINFINITY_CHECKPOINTS=str(tmp_path / "checkpoints"))
        trainers = (restart << SEQ_BITS) + 1_000_000
        failing_rank = (restart << SEQ_BITS) + (1 << (SEQ_BITS - 1)) + 4096
        assert last < trainers < failing_rank < line.seq < (restart + 1) << SEQ_BITS
        last = line.seq

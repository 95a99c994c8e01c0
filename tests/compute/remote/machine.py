"""A machine behind an `ssh` that runs commands here, in a home of its own, and can fail as a real one does."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from ainfinity.compute.remote.ssh import Machine

_SSH = """#!/bin/sh
echo "$@" >> "$FAKE/calls"
config=; host=
while [ "$1" != -- ]; do [ "$1" = -F ] && config=$2; host=$1; shift; done
shift
grep -q "^Host $host" "$config" || { echo "no such host $host" >&2; exit 255; }
mode=$(cat "$FAKE/mode" 2>/dev/null)
case $mode in
  down) echo "ssh: connect to host $host: Connection refused" >&2; exit 255 ;;
  silent) exec sleep 600 ;;
  cut) HOME=$FAKE/home-$host sh -c "$1" | head -c "$(cat "$FAKE/bytes")"; echo "broken pipe" >&2; exit 255 ;;
esac
cd "$FAKE/home-$host" && HOME=$FAKE/home-$host exec sh -c "$1"
"""


@dataclass
class FakeMachine:
    """One machine with one node, or more."""

    root: Path
    machine: Machine

    @property
    def home(self) -> Path:
        return self.root / "home-node"

    def be(self, mode: str, after: int = 0) -> None:
        """Fail from now on: `down`, `silent`, `cut` after so many bytes; "" works again."""
        (self.root / "bytes").write_text(str(after))
        (self.root / "mode").write_text(mode)

    @property
    def calls(self) -> int:
        path = self.root / "calls"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def write(self, name: str, data: bytes) -> Path:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path


def make_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """Put the `ssh` of a new machine below a folder first on the PATH."""
    root = folder / "machine"
    for folder in ("bin", "home-node", "home-node-worker1"):
        (root / folder).mkdir(parents=True)
    program = root / "bin" / "ssh"
    program.write_text(_SSH)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(root))
    config = root / "config"
    config.write_text("Host node\n  Port 1\nHost node-worker1\n  Port 2\n")
    return FakeMachine(root, Machine(config, "node"))

"""Resolve the packages that pyproject.toml names and write constraints.txt anew (`make pins`)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Asked for by name, so that pip takes the build that is on the machine already and never swaps it for another.
PINNED = {"torch": "2.13.0"}
HEADER = """\
# The versions that the tests ran with. `make` passes this file on every pip line: a fresh install gets these and
# searches nothing. SkyPilot (click<8.2) and the Hugging Face hub (newest: click>=8.4.2) agree in few versions only.
# torch is pinned so that pip never swaps the build that is on the machine for another one. Written by `make pins`.
"""


def resolve() -> dict[str, str]:
    """What pip would install into an empty environment, by normalised name."""
    wanted = [f"{name}=={version}" for name, version in PINNED.items()]
    argv = [sys.executable, "-m", "pip", "install", "-qq", "--dry-run", "--ignore-installed", "--report", "-"]
    done = subprocess.run([*argv, *wanted, "-e", f"{ROOT}[all]"], check=True, stdout=subprocess.PIPE, text=True)
    report = json.loads(done.stdout)
    found = [item["metadata"] for item in report["install"]]
    # A local version such as 2.13.0+cpu names a build; which build fits is the machine's matter.
    return {re.sub(r"[-_.]+", "-", item["name"]).lower(): item["version"].partition("+")[0] for item in found}


def main() -> None:
    """Write the file."""
    versions = {name: version for name, version in resolve().items() if name not in {"ainfinity", "pip"}}
    lines = [f"{name}=={version}\n" for name, version in sorted(versions.items())]
    (ROOT / "constraints.txt").write_text(HEADER + "".join(lines))
    print(f"constraints.txt: {len(lines)} packages", file=sys.stderr)


if __name__ == "__main__":
    main()

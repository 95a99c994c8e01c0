"""Measure everything under "Speed and size" and write build/bench.json (`make bench`).

Trust ratios and CPU times: subject and control take turns in the same run. Exits 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from scripts.bench import appends, commands, feed, paint, remote, slurm, tick
from scripts.bench.measure import Figure

ROOT = Path(__file__).parents[2]
PARTS = {
    "commands": commands,
    "paint": paint,
    "feed": feed,
    "tick": tick,
    "remote": remote,
    "appends": appends,
    "slurm": slurm,
}


def table(figures: list[Figure]) -> str:
    """The figures as a table for people."""
    lines = [f"{'':64} {'value':>12} {'control':>10} {'ratio':>7}  goal"]
    for figure in figures:
        value = f"{figure.value:,.2f}" if figure.value < 100 else f"{figure.value:,.0f}"
        control = "" if figure.control is None else f"{figure.control:,.0f}"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f} ×"
        mark = "ok" if figure.ok else "MISSED"
        label = f"{figure.name} ({figure.unit})"
        lines.append(f"{label:64} {value:>12} {control:>10} {ratio:>7}  {figure.goal} {mark}")
    return "\n".join(lines)


def main() -> int:
    """Measure the parts that are named, or all."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure speed against controls.")
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="which parts; all of them by default")
    chosen = parser.parse_args().parts or list(PARTS)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="ainfinity-bench-") as folder:
        for part in chosen:
            print(f"measuring {part} …", file=sys.stderr)
            figures += PARTS[part].measure(Path(folder))
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    (build / "bench.json").write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
    print(f"Python {platform.python_version()}, {platform.platform(terse=True)}, {platform.machine()}")
    print(table(figures))
    print("written to build/bench.json", file=sys.stderr)
    return 0 if all(figure.ok for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())

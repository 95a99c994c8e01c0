"""What the tests run in place of the trainer: a real process, told what to be by its recipe file.

control     folder in which it notes its pid and its signals, and finds orders: `finish` (a code), `say` (text to print)
ranks       so many children, each in a session of its own as torchrun starts them
forward     on SIGTERM hand it to the ranks, wait for them and exit, as torchrun does
stubborn    ignore SIGTERM, ranks too
bare        ranks get an empty environment
leave       exit as soon as the ranks run
lines       print these at once
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def note(file: Path, text: object) -> None:
    with file.open("a") as opened:
        opened.write(f"{text}\n")


def obey(control: Path, rank: str) -> int:
    said = 0
    while True:
        say = control / "say"
        if not rank and say.exists():
            data = say.read_bytes()
            os.write(1, data[said:])
            said = len(data)
        if (control / "finish").exists():
            return int((control / "finish").read_text())
        time.sleep(0.01)


def main() -> int:
    recipe = json.loads(Path(sys.argv[1]).read_text())
    control = Path(recipe["control"])
    rank = sys.argv[2] if len(sys.argv) > 2 else ""
    ranks: list[subprocess.Popen[bytes]] = []

    def on_term(*_: object) -> None:
        note(control / "signals", rank or "main")
        if recipe.get("stubborn"):
            return
        if not rank and recipe.get("forward"):
            for child in ranks:
                child.terminate()
            for child in ranks:
                child.wait()
            sys.exit(1)
        time.sleep(recipe.get("saving", 0.0))
        sys.exit(0 if rank else 1)

    signal.signal(signal.SIGTERM, on_term)
    for number in range(0 if rank else recipe.get("ranks", 0)):
        argv = [sys.executable, "-S", "-E", __file__, sys.argv[1], f"rank{number}"]
        env = {} if recipe.get("bare") else None
        ranks.append(subprocess.Popen(argv, start_new_session=True, env=env))
    note(control / "pids", os.getpid())
    if not rank:
        while len((control / "pids").read_text().split()) < 1 + len(ranks):
            time.sleep(0.01)
        (control / "environment").write_text(json.dumps(dict(os.environ)))
        note(control / "starts", os.getpid())
        for line in recipe.get("lines", ()):
            print(line, flush=True)
        if recipe.get("leave"):
            return int(recipe.get("exit", 0))
    return obey(control, rank)


if __name__ == "__main__":
    sys.exit(main())

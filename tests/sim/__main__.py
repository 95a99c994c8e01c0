"""Play schedules from the command line.

python -m tests.sim --count 10000           # as `make sim N=10000`
python -m tests.sim --seed 1234             # as `make sim SEED=1234`: one schedule, with all that happened
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.sim.batch import play_many
from tests.sim.simulation import ground, play


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="how many schedules")
    parser.add_argument("--first", type=int, default=None, help="the first seed; drawn from the time if not given")
    parser.add_argument("--seed", type=int, default=None, help="play this one and print its trace")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args()
    if options.seed is not None:
        with ground() as place:
            outcome = play(place, options.seed)
        print("\n".join(outcome.trace))
        print(outcome.broke or "all invariants hold")
        return 1 if outcome.broke else 0
    first = options.first if options.first is not None else int(time.time()) * 1000
    print(f"{options.count} schedules from seed {first} in {options.jobs} processes")
    report = play_many(first, options.count, options.jobs)
    print(report.summary())
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())

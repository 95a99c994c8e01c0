"""Starts migrations as processes of their own, without paying for the imports each time.

Reads JSON lines. {"path", "folder", "revisions", "count", "plain"} forks `count` processes that run `ensure_schema` at
once, or with `plain` Alembic on SQLAlchemy's defaults, and answers their pids. {"wait": pid} answers the exit status,
negative for a signal.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

# All that a child needs is imported before the fork.
import alembic.command
import alembic.config
import sqlalchemy

import ainfinity.store.backup
import ainfinity.store.tables  # noqa: F401
from ainfinity.store.migrate import History, ensure_schema


def _child(order: dict, start: int) -> None:
    os.read(start, 1)
    history = History(Path(order["folder"]), tuple(order["revisions"]))
    try:
        if order["plain"]:
            _migrate_plainly(order)
        else:
            ensure_schema(Path(order["path"]), history=history)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _migrate_plainly(order: dict) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", order["folder"])
    with sqlalchemy.create_engine(f"sqlite:///{order['path']}").connect() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "head")
        connection.commit()


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            start, go = os.pipe()
            answer = []
            for _ in range(order["count"]):
                pid = os.fork()
                if pid == 0:
                    os.close(go)
                    _child(order, start)
                answer.append(pid)
            os.close(start)
            os.close(go)  # The end of the pipe is what all of them wait for.
        print(json.dumps(answer), flush=True)


main()

"""Imports the trainer once, then forks it as often as asked: a start costs a second instead of ten.

Requests and replies are JSON lines on stdin and stdout. {"ranks": [{"argv", "env", "cwd", "stdout", "stderr"}]} forks
one process for each rank and answers their pids; {"wait": pid} answers its exit code, negative for a signal. A rank's
"file_limit" is the size in bytes beyond which it cannot write a file.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from typing import Any

import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401, ZeRO imports it, and with it half of torch.compile
import peft  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401

from training import finetune, sft  # noqa: F401


def become_rank(rank: dict[str, Any]) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for fd, path in ((0, os.devnull), (1, rank["stdout"]), (2, rank["stderr"])):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, fd)
        os.close(file)
    os.chdir(rank["cwd"])
    os.environ.update(rank["env"])
    if rank["file_limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (rank["file_limit"], rank["file_limit"]))
    code = 99
    try:
        code = finetune.main(rank["argv"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 98
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    replies.write("{}\n")
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            replies.write(json.dumps({"code": os.waitstatus_to_exitcode(status)}) + "\n")
            continue
        pids: list[int] = []
        for rank in request["ranks"]:
            pid = os.fork()
            if pid == 0:
                become_rank(rank)
            pids.append(pid)
        replies.write(json.dumps({"pids": pids}) + "\n")


if __name__ == "__main__":
    serve()

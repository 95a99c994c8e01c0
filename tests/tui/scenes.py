"""Jobs to look at: what the tests, the golden screens and the screenshots show."""

from __future__ import annotations

import json
import math
from typing import Any

from ainfinity.schema.event import EventType
from ainfinity.schema.states import JobState
from ainfinity.schema.views import ArtifactRow, JobRow, Progress
from tests.tui.double import NOW, MemoryClient, job_row

_E = EventType
DEMO = "demoabcdef"
PROMPT = "Write the docstring of this Python function: def clamp(value, low, high)"
BEFORE = "The function clamp is a function that takes a value and returns a function of the value of the value."
AFTER = "Return value limited to the range from low to high."
SPEC: dict[str, Any] = {
    "name": "demo-docstrings",
    "recipe": {
        "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "data": "data/docstrings.jsonl",
        "method": "sft",
        "lora": {"r": 8, "alpha": 16, "targets": "all-linear"},
        "micro_batch_size": 4,
        "max_steps": 16,
        "lr": 0.0005,
        "zero_stage": 2,
    },
    "resources": {"infra": "local", "processes": 2},
    "policy": {"approval": "auto", "notify": "finish"},
}


def curve(step: int, total: int = 16) -> float:
    """A loss that falls, with some noise; the same each time."""
    return 2.6 + 0.72 * math.exp(-3.2 * step / total) + 0.03 * math.sin(step * 2.3)


def trainer_line(seq: int, kind: str, **data: Any) -> str:
    """A line as the trainer writes it."""
    return json.dumps({"ainfinity": 1, "seq": seq, "kind": kind, "at": NOW + seq, **data})


def add_demo(client: MemoryClient, *, steps: int = 9, total: int = 16) -> JobRow:
    """Add a job that has run for `steps` of its steps."""
    client.specs[DEMO] = SPEC
    client.add(job_row(DEMO, "demo-docstrings", state=JobState.PLANNING, submitted_at=NOW - 95, tags=("demo",)))
    client.record(_E.SUBMITTED, DEMO, at=NOW - 95)
    client.record(_E.PLANNED, DEMO, at=NOW - 95, plan_hash="1f2e3d4c5b6a7988", steps=total)
    client.record(_E.QUEUED, DEMO, at=NOW - 94.9)
    name = "ain-0a1b2c3d-demoabcdef-a1"
    client.record(_E.ATTEMPT_INTENDED, DEMO, attempt=1, at=NOW - 94, name=name, backend="local")
    client.record(_E.ATTEMPT_LAUNCHED, DEMO, attempt=1, at=NOW - 93.8, handle="pid 4242")
    client.record(_E.ATTEMPT_RUNNING, DEMO, attempt=1, at=NOW - 92)
    started = {
        "model": "SmolLM2-135M-Instruct",
        "trainable": 2_442_240,
        "world_size": 2,
        "device": "cpu",
        "total_steps": total,
    }
    client.record(_E.TRAINER_STARTED, DEMO, attempt=1, at=NOW - 60, **started)
    client.record(_E.TRAINER_EVAL, DEMO, attempt=1, at=NOW - 52, step=0, loss=3.313, perplexity=27.47)
    client.record(_E.TRAINER_SAMPLE, DEMO, attempt=1, at=NOW - 48, step=0, prompt=PROMPT, answer=BEFORE)
    client.log(
        DEMO,
        "[2025-10-09 08:52:14] torchrun: starting 2 ranks on this machine",
        "loading HuggingFaceTB/SmolLM2-135M-Instruct from the cache",
        "\x1b[33mWARNING\x1b[0m: no GPU found, training on the CPU in fp32",
        trainer_line(1, "started", **started),
        trainer_line(2, "eval", step=0, loss=3.313, perplexity=27.47),
        trainer_line(3, "sample", step=0, prompt=PROMPT, answer=BEFORE),
    )
    for step in range(1, steps + 1):
        client.step(DEMO, step, total, round(curve(step, total), 4), eta=(total - step) * 4.5)
        numbers = {"loss": round(curve(step, total), 4), "lr": 5e-4 * (1 - step / total), "grad_norm": 0.91}
        place = {"step": step, "total_steps": total}
        client.log(DEMO, trainer_line(3 + step, "step", **place, **numbers, tokens_per_second=160.0))
    return client.rows[DEMO]


def finish_demo(client: MemoryClient) -> JobRow:
    """Let the demo job end well."""
    path = f"/home/ana/.local/share/ainfinity/jobs/{DEMO}/output/adapter"
    client.record(_E.TRAINER_CHECKPOINT, DEMO, attempt=1, step=16, path="checkpoints/step-000016", seconds=0.8)
    client.record(_E.TRAINER_EVAL, DEMO, attempt=1, step=16, loss=2.655, perplexity=14.22)
    client.record(_E.TRAINER_SAMPLE, DEMO, attempt=1, step=16, prompt=PROMPT, answer=AFTER)
    client.record(_E.TRAINER_FINISHED, DEMO, attempt=1, step=16, eval_before=3.313, eval_after=2.655, output=path)
    client.files[DEMO].append(ArtifactRow(DEMO, 1, "adapter", path, 9_800_000, "ab" * 32, NOW))
    client.record(_E.ATTEMPT_SUCCEEDED, DEMO, attempt=1, exit_code=0, outcome="succeeded")
    client.record(_E.SUCCEEDED, DEMO)
    client.log(DEMO, "saved the adapter", "done")
    return client.rows[DEMO]


def add_some(client: MemoryClient) -> None:
    """Add one job in each state, by several people."""
    add = _Adder(client)
    llama: dict[str, Any] = {"model": "meta-llama/Llama-3.1-8B-Instruct", "infra": "aws/us-east-1", "gpus": "H100:8"}
    paid: dict[str, Any] = {"price_per_hour": 98.32, "cost": 147.48}
    qwen: dict[str, Any] = {"model": "Qwen/Qwen2.5-7B", "infra": "gcp/europe-west4", "gpus": "A100:4", "attempt": 3}
    big: dict[str, Any] = {"model": "meta-llama/Llama-3.3-70B-Instruct", "infra": "aws/us-west-2", "gpus": "H100:32"}
    memory = "CUDA out of memory on rank 3 at step 3: 79.1 of 80.0 GiB were in use."
    oom: dict[str, Any] = {"error_code": "out_of_memory", "error_message": memory}
    broke: dict[str, Any] = {"infra": "slurm/lab", "cost": 0.31, "price_per_hour": 0.4}
    add("support-llama-8b", JobState.RUNNING, step=2310, of=5000, loss=1.402, eta=5400.0, **llama, **paid)
    add("legal-summaries", JobState.RUNNING, step=310, of=900, loss=1.91, infra="slurm/lab", stale_since=NOW - 300)
    add("spot-qwen-7b", JobState.RECOVERING, step=800, of=2000, loss=1.655, price_per_hour=3.9, cost=41.2, **qwen)
    add("tools-mistral", JobState.LAUNCHING, infra="k8s", gpus="L40S:2", model="mistralai/Mistral-7B-v0.3")
    add("wrong-data", JobState.CANCELLING, step=12, of=400, loss=2.91)
    add("sweep-lr-1e-4", JobState.QUEUED, tags=("sweep",), priority=5)
    add("sweep-lr-5e-5", JobState.QUEUED, tags=("sweep",))
    add("big-70b", JobState.AWAITING_APPROVAL, **big)
    add("docs-v3", JobState.SUCCEEDED, step=120, of=120, loss=1.873, finished_at=NOW - 7000)
    add("chat-oom", JobState.FAILED, step=3, of=200, loss=2.2, finished_at=NOW - 20000, **oom, **broke)
    add("typo-in-name", JobState.CANCELLED, finished_at=NOW - 80000)
    add("too-dear", JobState.REJECTED, finished_at=NOW - 90000)


class _Adder:
    """Adds jobs, each submitted an hour and a half before the last, by three people in turn."""

    def __init__(self, client: MemoryClient) -> None:
        self._client = client
        self._count = 0

    def __call__(
        self,
        name: str,
        state: JobState,
        *,
        step: int = 0,
        of: int = 0,
        loss: float | None = None,
        eta: float | None = None,
        **changes: Any,
    ) -> None:
        owner = ("local:ana", "slack:ben", "token:ci")[self._count % 3]
        self._count += 1
        begun = {
            "owner": owner,
            "attempt": 1,
            "submitted_at": NOW - 5400 * self._count,
            "started_at": NOW - 5000 * self._count if step else None,
            "progress": Progress(step, of, loss, None, 8400.0 if eta else None, eta, NOW - 4),
        }
        self._client.add(job_row(f"job{self._count:07}", name, state=state, **begun | changes))


def add_many(client: MemoryClient, count: int) -> None:
    """Add jobs that are over, and a few that are not."""
    over = (JobState.SUCCEEDED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
    for index in range(count):
        state = JobState.QUEUED if index % 900 == 7 else over[index % 4]
        finished = None if state == JobState.QUEUED else NOW - 600 * index - 100
        steps = {JobState.QUEUED: 0, JobState.SUCCEEDED: 200}.get(state, 50 + index % 150)
        client.add(
            job_row(
                f"j{index:06}",
                f"{('chat', 'docs', 'tools', 'summaries')[index % 4]}-{index:05}",
                state=state,
                owner=("local:ana", "slack:ben", "token:ci")[index % 3],
                attempt=1,
                submitted_at=NOW - 600 * index - 900,
                finished_at=finished,
                error_code="exit_code" if state == JobState.FAILED else "",
                progress=Progress(steps, 200 if steps else 0, 1.5 + index % 97 / 97 if steps else None),
            )
        )

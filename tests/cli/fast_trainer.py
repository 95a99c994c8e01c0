"""A stand-in for torchrun and the trainer: it speaks the trainer's protocol and trains nothing."""

# Called with -m torch.distributed.run … -m training.finetune RECIPE --output DIR --checkpoints DIR
# The first of the recipe's sample prompts tells how the run goes: "ok", "fail", or "slow" (until SIGTERM).
import hashlib
import json
import os
import signal
import sys
import time

from training.protocol import Emitter

arguments = sys.argv[1:]
with open(arguments[arguments.index("training.finetune") + 1]) as file:
    recipe = json.load(file)
output = arguments[arguments.index("--output") + 1]
checkpoints = arguments[arguments.index("--checkpoints") + 1]
way = (recipe["sample_prompts"] or ["ok"])[0]
emit = Emitter().emit
total = recipe["max_steps"] or 4


def save(step):
    path = os.path.join(checkpoints, f"step-{step:06d}")
    os.makedirs(path, exist_ok=True)
    open(os.path.join(path, "COMPLETED"), "w").close()
    emit("checkpoint", step=step, path=path, seconds=0.01)


def stop(number, frame):
    save(1)
    emit("stopped", step=1, reason="sigterm", checkpoint=os.path.join(checkpoints, "step-000001"))
    sys.exit(76)


signal.signal(signal.SIGTERM, stop)
print("plain text from a library")
print("token in the log:", os.environ.get("CANARY_TOKEN", "none"), flush=True)
emit("started", model=recipe["model"], total_steps=total, world_size=1, resumed_step=None, seed=0, rows=2)
emit("eval", step=0, loss=3.5, perplexity=33.1, tokens=10)
for step in range(1, total + 1):
    emit("step", step=step, total_steps=total, loss=3.5 - step / 10, lr=1e-4, grad_norm=1.0, tokens_per_second=100.0)
    while way == "slow":
        time.sleep(0.05)
if way == "fail":
    emit("failed", code="all_masked", message="every row is masked", hint="set train_on: all", rank=0, step=1)
    sys.exit(1)
save(total)
emit("eval", step=total, loss=2.5, perplexity=12.1, tokens=10)
folder = os.path.join(output, "adapter")
os.makedirs(folder, exist_ok=True)
content = b"weights"
with open(os.path.join(folder, "adapter.bin"), "wb") as file:
    file.write(content)
files = [{"path": "adapter.bin", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}]
emit("finished", step=total, loss=2.5, eval_before=3.5, eval_after=2.5, output=folder, files=files, seconds=1.0)

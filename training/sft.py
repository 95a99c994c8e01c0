"""Supervised fine-tuning: one flat DeepSpeed loop.

The loss of a step is the mean over its target tokens on all ranks and in all forward passes. DeepSpeed averages
gradients over ranks and passes, so each pass contributes `sum * world * accumulation / tokens of the step`; neither the
number of ranks nor accumulation changes what is learned.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import torch
import torch.distributed as dist
from transformers import PreTrainedTokenizerBase, set_seed

from training import checkpoint as ck
from training.batches import collate, deal, step_rows
from training.claim import ClaimedFolder
from training.dataset import Chat, Dataset, encode_chats, hold_out, read_chats
from training.distributed import from_rank_zero, gather_numbers, peak_memory_bytes, start, together
from training.engine import start_engine, summed_loss, unsharded_gradient_norm
from training.errors import TrainingError, invalid
from training.evaluation import held_out_loss, sample_answers
from training.export import export
from training.masking import ChatEncoder
from training.model import count_parameters, load_tokenizer
from training.protocol import Emitter
from training.recipe import Recipe
from training.reproduce import hardware, versions
from training.schedule import learning_rate, total_steps
from training.stopping import Reason, StopRequest

_STOP_CODES: Final[tuple[Reason | None, ...]] = (None, "deadline", "sigterm")  # agreed on as numbers; the highest wins


@dataclass(frozen=True, kw_only=True)
class Run:
    """One start of the trainer. Only rank 0 has an emitter that writes and a claim on the checkpoint folder."""

    recipe: Recipe
    output: Path
    checkpoints: Path
    attempt: str
    resume_step: int | None
    emitter: Emitter | None
    claim: ClaimedFolder | None
    stop: StopRequest

    def emit(self, kind: str, **data: Any) -> None:
        """Write a protocol line, on rank 0."""
        if self.emitter is not None:
            self.emitter.emit(kind, **data)

    def check_claim(self) -> None:
        """Raise TrainingError on all ranks if another attempt has taken the checkpoint folder over."""
        from_rank_zero(lambda: self.claim.check() if self.claim is not None else None)


@dataclass(frozen=True)
class Data:
    """What is trained on, and what is held out."""

    train: Dataset
    held_out: Dataset | None
    sha256: str
    pad_id: int


@dataclass
class Session:
    """A run with everything loaded. `end` is where the stream of rows ends, unless max_steps decides."""

    run: Run
    device: torch.device
    tokenizer: PreTrainedTokenizerBase
    data: Data
    engine: Any
    state: ck.State
    end: int | None
    last_step: int
    saved: Path | None = None


@dataclass(frozen=True)
class Step:
    """What one optimizer step gave, over all ranks."""

    loss: float
    grad_norm: float
    lr: float
    tokens: int
    seconds: float
    data_seconds: float
    memory_bytes: int
    stopping: Reason | None


def train(run: Run) -> Reason | None:
    """Train, evaluate and export as the recipe says. Returns None when finished, or why it stopped after saving."""
    began, recipe = time.monotonic(), run.recipe
    session = open_session(run)
    run.stop.act_at_once(lambda: emit_stopped(session, "sigterm"))
    if session.saved is None:
        session.state = replace(session.state, eval_before=evaluate(session))
        answer_samples(session)

    loss = math.nan
    run.stop.wait_for_step()
    while session.state.step < session.last_step:
        result = take_step(session)
        step, last, loss = session.state.step, session.state.step == session.last_step, result.loss
        refuse_divergence(step, result)
        if last or step % recipe.log_every == 0:
            emit_step(session, result)
        if last or result.stopping or (recipe.save_every and step % recipe.save_every == 0):
            save(session)
        if result.stopping and not last:
            emit_stopped(session, result.stopping)
            return result.stopping
        if not last and recipe.eval_every and step % recipe.eval_every == 0:
            evaluate(session)

    # The last checkpoint holds everything, so a signal need not wait any more.
    run.stop.act_at_once(lambda: emit_stopped(session, "sigterm"))
    eval_after = evaluate(session)
    answer_samples(session)
    run.check_claim()
    folder, files = export(session.engine, session.tokenizer, recipe, run.output)
    run.emit(
        "finished",
        step=session.state.step,
        loss=loss,
        eval_before=session.state.eval_before,
        eval_after=eval_after,
        output=str(folder),
        files=files,
        seconds=time.monotonic() - began,
    )
    return None


def take_step(session: Session) -> Step:
    """One optimizer step on the next rows of the stream; moves the session's state on."""
    began = time.monotonic()
    recipe, engine, state, world = session.run.recipe, session.engine, session.state, dist.get_world_size()
    rows = session.data.train.rows
    numbers = step_rows(len(rows), recipe.seed, state.position, rows_per_step(recipe), session.end)
    picked = [rows[number] for number in numbers]
    micro_batches = deal(
        picked, rank=dist.get_rank(), world=world, micro_batch=recipe.micro_batch_size, forwards=recipe.accumulation
    )
    batches = [collate(micro, session.data.pad_id).to(session.device) for micro in micro_batches]
    targets = sum(row.targets for row in picked)
    data_seconds = time.monotonic() - began

    lr = learning_rate(recipe, state.step + 1, session.last_step)
    for group in engine.optimizer.param_groups:
        group["lr"] = lr
    engine.train()
    loss_sum, grad_norm = 0.0, None
    for batch in batches:
        loss = summed_loss(engine, batch)
        engine.backward(loss * (world * recipe.accumulation / targets))
        loss_sum += float(loss.detach())
        if recipe.zero_stage == 0 and engine.is_gradient_accumulation_boundary():
            grad_norm = unsharded_gradient_norm(engine)
        engine.step()
    if grad_norm is None:
        grad_norm = float(engine.get_global_grad_norm())

    stop = session.run.stop
    numbers = [loss_sum, _STOP_CODES.index(stop.reason()), peak_memory_bytes(session.device), stop.limit() or math.inf]
    ranks = gather_numbers(numbers, session.device)
    if dist.get_rank() and os.environ.get("LOCAL_RANK") == "0":  # another machine than rank 0's
        stop.follow(ranks[0][3] if math.isfinite(ranks[0][3]) else None)
    session.state = replace(state, step=state.step + 1, position=state.position + len(picked))
    return Step(
        loss=sum(rank[0] for rank in ranks) / targets,
        grad_norm=grad_norm,
        lr=lr,
        tokens=sum(len(row.ids) for row in picked),
        seconds=time.monotonic() - began,
        data_seconds=data_seconds,
        memory_bytes=int(max(rank[2] for rank in ranks)),
        stopping=_STOP_CODES[int(max(rank[1] for rank in ranks))],
    )


def rows_per_step(recipe: Recipe) -> int:
    """Rows of one optimizer step over all ranks."""
    return recipe.micro_batch_size * recipe.accumulation * dist.get_world_size()


def refuse_divergence(step: int, result: Step) -> None:
    """Stop at the first loss or gradient that is not a number; nothing after it is worth its price."""
    if not (math.isfinite(result.loss) and math.isfinite(result.grad_norm)):
        raise TrainingError(
            "diverged",
            f"step {step} has loss {result.loss} and gradient norm {result.grad_norm}",
            "lower lr, add warmup_steps, or look for broken rows in data",
            shared=True,
        )


def open_session(run: Run) -> Session:
    """Join the other ranks, load everything, go on from a checkpoint if there is one, and emit `started`."""
    recipe, device = run.recipe, start()
    tokenizer = together(lambda: load_tokenizer(recipe.model))
    data = together(lambda: load_data(recipe, tokenizer))
    set_seed(recipe.seed)
    engine = together(lambda: start_engine(recipe, rows_per_step(recipe)))
    set_seed(recipe.seed + dist.get_rank())  # dropout differs between ranks

    found = find_checkpoint(run, data)
    state = ck.State(
        step=0,
        position=0,
        world_size=dist.get_world_size(),
        zero_stage=recipe.zero_stage,
        attempt=run.attempt,
        data_sha256=data.sha256,
    )
    if found is not None:
        before = found.state
        state = replace(state, step=before.step, position=before.position, eval_before=before.eval_before)
        together(lambda: ck.load_checkpoint(engine, found, adapter_only=recipe.lora is not None))
    rows = len(data.train.rows)
    end = None if recipe.max_steps is not None else max(1, round(recipe.epochs * rows))
    last_step = total_steps(recipe, state.step, state.position, rows, rows_per_step(recipe))
    saved = None if found is None else found.path
    session = Session(run, device, tokenizer, data, engine, state, end, last_step, saved)
    emit_started(session)
    return session


def load_data(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Data:
    """Read and encode the recipe's data. Raises TrainingError `data_invalid`, `all_masked` or `template_unmaskable`."""
    encoder = ChatEncoder(tokenizer, recipe.train_on)

    def encode(chats: Sequence[Chat], source: str) -> Dataset:
        return encode_chats(chats, encoder, source=source, max_length=recipe.max_length, over_length=recipe.over_length)

    chats, sha256 = read_chats(Path(recipe.data))
    held_out: Dataset | None = None
    if recipe.eval_data is not None:
        held_out = encode(read_chats(Path(recipe.eval_data))[0], recipe.eval_data)
    elif recipe.eval_rows:
        chats, held_out_chats = hold_out(chats, recipe.eval_rows, recipe.seed)
        held_out = encode(held_out_chats, recipe.data)
    return Data(encode(chats, recipe.data), held_out, sha256, cast("int", tokenizer.pad_token_id or 0))


def find_checkpoint(run: Run, data: Data) -> ck.Checkpoint | None:
    """The checkpoint to go on from, if there is one. Raises TrainingError if it does not fit this run."""
    found, passed_over = from_rank_zero(lambda: ck.find_checkpoint(run.checkpoints, run.attempt, run.resume_step))
    for reason in passed_over:
        run.emit("warning", code="checkpoint_passed_over", message=f"an unusable checkpoint is passed over: {reason}")
    if found is None:
        return None
    state, world = found.state, dist.get_world_size()
    if (state.world_size, state.zero_stage) != (world, run.recipe.zero_stage):
        raise invalid(
            "checkpoint_mismatch",
            f"{found.path.name} was written by {state.world_size} processes at ZeRO stage {state.zero_stage}, "
            f"and this run has {world} at stage {run.recipe.zero_stage}",
            "use the same number of processes and the same zero_stage, or another folder with --checkpoints",
        )
    if state.data_sha256 != data.sha256:
        run.emit("warning", code="data_changed", message=f"data is not the file that {found.path.name} was trained on")
    return found


def save(session: Session) -> None:
    """Write a checkpoint and its line, unless the folder now belongs to another attempt."""
    run, began = session.run, time.monotonic()
    run.check_claim()
    session.saved = ck.save_checkpoint(
        session.engine,
        run.checkpoints,
        session.state,
        keep_last=run.recipe.keep_last,
        adapter_only=run.recipe.lora is not None,
    )
    run.emit("checkpoint", step=session.state.step, path=str(session.saved), seconds=time.monotonic() - began)


def evaluate(session: Session) -> float | None:
    """The held-out loss, reported as an `eval` line; None without held-out data."""
    held_out = session.data.held_out
    if held_out is None:
        return None
    micro_batch, pad_id = session.run.recipe.micro_batch_size, session.data.pad_id
    loss = held_out_loss(session.engine, held_out, micro_batch=micro_batch, pad_id=pad_id, device=session.device)
    perplexity = math.exp(loss) if loss < 700 else math.inf
    session.run.emit("eval", step=session.state.step, loss=loss, perplexity=perplexity, tokens=held_out.targets)
    return loss


def answer_samples(session: Session) -> None:
    """The recipe's prompts with the model's answers, as `sample` lines."""
    for prompt, answer in sample_answers(session.engine, session.tokenizer, session.run.recipe, session.device):
        session.run.emit("sample", step=session.state.step, prompt=prompt, answer=answer)


def emit_started(session: Session) -> None:
    """The `started` line, and a warning if rows are not trained whole."""
    recipe, dataset = session.run.recipe, session.data.train
    parameters, trainable = count_parameters(session.engine.module)
    session.run.emit(
        "started",
        model=recipe.model,
        parameters=parameters,
        trainable=trainable,
        world_size=dist.get_world_size(),
        device=session.device.type,
        precision=recipe.precision,
        zero_stage=recipe.zero_stage,
        total_steps=session.last_step,
        epochs=recipe.epochs,
        rows=len(dataset.rows),
        tokens=dataset.tokens,
        trained_tokens=dataset.targets,
        dropped_rows=dataset.dropped,
        truncated_rows=dataset.truncated,
        resumed_step=session.state.step or None,
        versions=versions(),
        hardware=hardware(),
        data_sha256=session.data.sha256,
        seed=recipe.seed,
    )
    if dataset.dropped or dataset.truncated:
        message = f"{dataset.truncated} rows are cut at max_length {recipe.max_length}, {dataset.dropped} dropped"
        session.run.emit("warning", code="over_length", message=message)


def emit_step(session: Session, result: Step) -> None:
    """The `step` line."""
    session.run.emit(
        "step",
        step=session.state.step,
        total_steps=session.last_step,
        epoch=session.state.position / len(session.data.train.rows),
        loss=result.loss,
        lr=result.lr,
        grad_norm=result.grad_norm,
        tokens=result.tokens,
        tokens_per_second=result.tokens / result.seconds,
        step_seconds=result.seconds,
        data_seconds=result.data_seconds,
        memory_bytes=result.memory_bytes,
    )


def emit_stopped(session: Session, reason: Reason) -> None:
    """The `stopped` line, with the checkpoint from which the run can go on."""
    saved = None if session.saved is None else str(session.saved)
    session.run.emit("stopped", step=session.state.step, reason=reason, checkpoint=saved)

"""The real trainer on a tiny model, two ranks over gloo unless a test needs only one."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.training.helpers import RecipeMaker, Running, Server, failure, finished, losses, of_kind
from training.dataset import encode_chats, read_chats
from training.files import damage
from training.masking import ChatEncoder


@pytest.fixture(scope="module")
def plain(trainer: Server, tiny_recipe: RecipeMaker, tmp_path_factory: pytest.TempPathFactory) -> Running:
    """An undisturbed run at ZeRO stage 2, which several tests look at."""
    recipe = tiny_recipe(sample_prompts=["add one and 3"], sample_tokens=5, save_every=2, keep_last=2)
    return trainer.run(recipe, tmp_path_factory.mktemp("plain"))


def test_stdout_holds_protocol_lines_only_with_a_rising_seq(plain: Running) -> None:
    lines = plain.lines()
    assert len(lines) == len(plain.stdout.read_text().splitlines())
    assert [line.seq for line in lines] == list(range(1, len(lines) + 1))
    assert [line.kind for line in lines if line.kind not in ("step", "checkpoint")] == [
        *("started", "eval", "sample", "eval", "sample", "finished")
    ]
    assert [line.data["step"] for line in of_kind(lines, "checkpoint")] == [2, 4, 6]
    assert all(a.at <= b.at for a, b in itertools.pairwise(lines))


def test_a_run_tells_what_it_ran_on(plain: Running, tiny_data: Path) -> None:
    started = plain.lines()[0].data
    assert started["world_size"] == 2
    assert started["rows"] == 40
    assert started["trainable"] == started["parameters"] > 100_000
    assert 0 < started["trained_tokens"] < started["tokens"]
    assert started["data_sha256"] == read_chats(tiny_data / "train.jsonl")[1]
    assert started["versions"]["torch"]
    assert started["hardware"]["cpus"] == os.cpu_count()


def test_steps_carry_what_a_screen_shows(plain: Running) -> None:
    steps = of_kind(plain.lines(), "step")
    assert [step.data["step"] for step in steps] == [1, 2, 3, 4, 5, 6]
    for step in steps:
        assert step.data["total_steps"] == 6
        assert all(step.data[name] > 0 for name in ("loss", "lr", "grad_norm", "tokens", "tokens_per_second"))
        assert step.data["memory_bytes"] > 50_000_000
        assert 0 <= step.data["data_seconds"] <= step.data["step_seconds"]
    assert steps[-1].data["epoch"] == pytest.approx(6 * 4 / 40)


def test_only_the_last_checkpoints_are_kept(plain: Running) -> None:
    folder = Path(of_kind(plain.lines(), "checkpoint")[0].data["path"]).parent
    assert sorted(path.name for path in folder.glob("*step*")) == ["step-000004", "step-000006"]


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_every_zero_stage_learns_the_same(
    stage: int, trainer: Server, tiny_recipe: RecipeMaker, plain: Running, tmp_path: Path
) -> None:
    run = trainer.run(tiny_recipe(zero_stage=stage), tmp_path)
    assert losses(run.lines()) == pytest.approx(losses(plain.lines()), rel=1e-5)
    assert finished(run)["eval_after"] == pytest.approx(finished(plain)["eval_after"], rel=1e-5)
    norms = [[step.data["grad_norm"] for step in of_kind(each.lines(), "step")] for each in (run, plain)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


@pytest.mark.parametrize(
    ("world", "changes"),
    [
        (2, {"micro_batch_size": 1, "accumulation": 2}),
        (1, {"micro_batch_size": 4}),
        (1, {"micro_batch_size": 1, "accumulation": 4}),
    ],
)
def test_ranks_and_accumulation_change_nothing(
    world: int, changes: dict[str, Any], trainer: Server, tiny_recipe: RecipeMaker, plain: Running, tmp_path: Path
) -> None:
    run = trainer.run(tiny_recipe(**changes), tmp_path, world=world)
    assert losses(run.lines()) == pytest.approx(losses(plain.lines()), abs=1e-5)


def test_learning_lowers_the_held_out_loss_and_a_learning_rate_of_zero_does_not(
    trainer: Server, tiny_recipe: RecipeMaker, plain: Running, tmp_path: Path
) -> None:
    real, still = finished(plain), finished(trainer.run(tiny_recipe(lr=0), tmp_path))
    assert still["eval_before"] == real["eval_before"]
    assert abs(still["eval_before"] - still["eval_after"]) < 0.01
    assert real["eval_before"] - real["eval_after"] >= 0.5


@pytest.mark.parametrize("stage", [0, 3])
def test_the_last_step_of_an_epoch_takes_the_rows_that_are_left(
    stage: int, trainer: Server, tiny_recipe: RecipeMaker, tiny_data: Path, tmp_path: Path
) -> None:
    rows = (tiny_data / "train.jsonl").read_text().splitlines(keepends=True)[:5]
    (tmp_path / "five.jsonl").write_text("".join(rows))
    recipe = tiny_recipe(data=str(tmp_path / "five.jsonl"), max_steps=None, epochs=1.0, zero_stage=stage)
    run = trainer.run(recipe, tmp_path / "out")
    steps = of_kind(run.lines(), "step")
    assert [step.data["epoch"] for step in steps] == [0.8, 1.0]
    assert sum(step.data["tokens"] for step in steps) == run.lines()[0].data["tokens"]


# Stopping and going on


@pytest.mark.parametrize(
    "changes",
    [
        {"zero_stage": 0},
        {"zero_stage": 2, "lora": {"r": 4, "dropout": 0.2}},
        {"zero_stage": 3, "weight_decay": 0.1, "schedule": "linear", "warmup_ratio": 0.2},
    ],
    ids=["full-0", "lora-2", "full-3"],
)
def test_a_run_that_is_stopped_and_resumed_has_exactly_the_losses_of_an_undisturbed_one(
    changes: dict[str, Any], trainer: Server, tiny_recipe: RecipeMaker, tmp_path: Path
) -> None:
    recipe = tiny_recipe(**changes, max_steps=30)
    whole = trainer.run(recipe, tmp_path / "whole")
    run = trainer.start(recipe, tmp_path / "cut", env={"AINFINITY_ATTEMPT": "job-a1"})
    run.wait_for("step", 3)
    run.signal(signal.SIGTERM)
    run.signal(signal.SIGTERM)  # as when both torchrun and whoever cancels reach the ranks
    assert run.wait().codes == [76, 76], run.stderr.read_text()
    stopped = run.lines()[-1]
    assert stopped.kind == "stopped"
    assert 3 <= stopped.data["step"] < 30
    assert stopped.data["reason"] == "sigterm"

    resumed = trainer.run(recipe, tmp_path / "cut", env={"AINFINITY_ATTEMPT": "job-a1"})
    assert resumed.lines()[0].data["resumed_step"] == stopped.data["step"]
    assert resumed.lines()[0].seq > stopped.seq
    assert min(losses(resumed.lines())) == stopped.data["step"] + 1
    assert losses(run.lines()) | losses(resumed.lines()) == losses(whole.lines())
    for name in ("eval_before", "eval_after", "loss"):
        assert finished(resumed)[name] == finished(whole)[name]


def test_one_rank_that_is_told_to_stop_stops_all(trainer: Server, tiny_recipe: RecipeMaker, tmp_path: Path) -> None:
    run = trainer.start(tiny_recipe(max_steps=200), tmp_path)
    run.wait_for("step")
    os.kill(run.pids[1], signal.SIGTERM)
    assert run.wait().codes == [76, 76]
    assert Path(run.lines()[-1].data["checkpoint"]).joinpath("COMPLETED").exists()


def test_a_deadline_stops_after_saving(trainer: Server, tiny_recipe: RecipeMaker, tmp_path: Path) -> None:
    run = trainer.run(tiny_recipe(), tmp_path, env={"AINFINITY_DEADLINE": str(time.time() - 1)})
    assert run.codes == [76, 76]
    assert run.lines()[-1].kind == "stopped"
    assert (run.lines()[-1].data["reason"], run.lines()[-1].data["step"]) == ("deadline", 1)


def test_a_killed_run_goes_on_from_its_last_whole_checkpoint_past_a_damaged_one(
    trainer: Server, tiny_recipe: RecipeMaker, tmp_path: Path
) -> None:
    recipe = tiny_recipe(max_steps=400, save_every=2, keep_last=3)
    run = trainer.start(recipe, tmp_path)
    run.wait_for("checkpoint", 3)
    run.signal(signal.SIGKILL)
    run.wait()
    folder = tmp_path / "checkpoints"
    newest, before = sorted(folder.glob("step-*"), reverse=True)[:2]
    next((newest / "engine").iterdir()).write_bytes(b"torn")
    resumed = trainer.start(recipe, tmp_path)
    (warning,) = resumed.wait_for("warning")
    started = resumed.wait_for("started")[0]
    resumed.signal(signal.SIGTERM)
    resumed.wait()
    assert warning.data["code"] == "checkpoint_passed_over"
    assert newest.name in warning.data["message"]
    assert started.data["resumed_step"] == int(before.name.removeprefix("step-"))


def test_a_retry_from_a_step_repeats_the_steps_after_it(
    trainer: Server, tiny_recipe: RecipeMaker, plain: Running, tmp_path: Path
) -> None:
    recipe = tiny_recipe(save_every=2, keep_last=5)
    trainer.run(recipe, tmp_path, env={"AINFINITY_ATTEMPT": "job-a1"})
    retry = {"AINFINITY_ATTEMPT": "job-a2", "AINFINITY_RESUME_STEP": "2"}
    run = trainer.run(recipe, tmp_path, env=retry)
    assert losses(run.lines()) == {step: loss for step, loss in losses(plain.lines()).items() if step > 2}
    missing = {"AINFINITY_ATTEMPT": "job-a3", "AINFINITY_RESUME_STEP": "3"}
    assert "2, 4, 6" in failure(trainer.run(recipe, tmp_path, env=missing), "checkpoint_missing", 2)


def test_a_finished_run_started_again_only_exports_again(
    trainer: Server, tiny_recipe: RecipeMaker, plain: Running, tmp_path: Path
) -> None:
    first = trainer.run(tiny_recipe(), tmp_path)
    again = trainer.run(tiny_recipe(), tmp_path)
    assert losses(again.lines()) == {}
    assert again.lines()[0].seq > first.lines()[-1].seq
    assert finished(again)["eval_after"] == finished(first)["eval_after"]
    assert finished(again)["eval_before"] == finished(first)["eval_before"]


def test_another_number_of_processes_is_refused_with_what_to_do(
    trainer: Server, tiny_recipe: RecipeMaker, tmp_path: Path
) -> None:
    trainer.run(tiny_recipe(max_steps=1), tmp_path, world=1)
    assert "written by 1 processes" in failure(trainer.run(tiny_recipe(), tmp_path), "checkpoint_mismatch", 2)


def test_a_second_copy_leaves_the_first_alone(trainer: Server, tiny_recipe: RecipeMaker, tmp_path: Path) -> None:
    own = {"AINFINITY_ATTEMPT": "job-a1", "SKYPILOT_TASK_ID": "one"}
    first = trainer.start(tiny_recipe(max_steps=60), tmp_path, env=own)
    first.wait_for("step")
    for task in ("one", "two"):  # the same start again on this machine, and one from another cluster
        copy = trainer.run(tiny_recipe(), tmp_path, env=own | {"SKYPILOT_TASK_ID": task}, world=1)
        failure(copy, "second_copy", 75)
    assert finished(first.wait())["step"] == 60


def test_a_newer_attempt_ends_the_older_one(trainer: Server, tiny_recipe: RecipeMaker, tmp_path: Path) -> None:
    older = trainer.start(
        tiny_recipe(max_steps=100_000, save_every=5), tmp_path, env={"AINFINITY_ATTEMPT": "job-a1"}, world=1
    )
    older.wait_for("checkpoint")
    newer = trainer.start(tiny_recipe(max_steps=100_000), tmp_path, env={"AINFINITY_ATTEMPT": "job-a2"}, world=1)
    assert "job-a2 has taken over" in failure(older.wait(), "second_copy", 75)
    newer.wait_for("step")
    newer.signal(signal.SIGTERM)
    assert newer.wait().codes == [76]


# The export


@pytest.mark.parametrize(
    "changes",
    [
        {"zero_stage": 0},
        {"zero_stage": 2, "lora": {"r": 4}},
        {"zero_stage": 3},
        {"zero_stage": 3, "lora": {"r": 4}},
    ],
    ids=["full-0", "lora-2", "full-3", "lora-3"],
)
def test_the_export_loads_elsewhere_and_has_the_loss_that_was_reported(
    changes: dict[str, Any], trainer: Server, tiny_recipe: RecipeMaker, tiny_data: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(**changes)
    result = finished(trainer.run(recipe, tmp_path))
    folder = Path(result["output"])
    assert folder == tmp_path / ("adapter" if "lora" in changes else "model")
    assert json.loads((folder / "manifest.json").read_text()) == result["files"]
    assert damage(folder, result["files"]) is None
    assert held_out_loss(recipe, folder, tiny_data / "eval.jsonl") == pytest.approx(result["eval_after"], abs=1e-5)
    assert held_out_loss(recipe, None, tiny_data / "eval.jsonl") == pytest.approx(result["eval_before"], abs=1e-5)


def held_out_loss(recipe: dict[str, Any], export: Path | None, data: Path) -> float:
    """The loss by transformers' own arithmetic, row by row without padding, of an export or of the model before."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    full = export is not None and export.name == "model"
    model: Any = AutoModelForCausalLM.from_pretrained(export if full else recipe["model"])
    if export is not None and not full:
        model = PeftModel.from_pretrained(model, export)
    tokenizer: Any = AutoTokenizer.from_pretrained(export or recipe["model"])
    encoder = ChatEncoder(tokenizer, "assistant")
    dataset = encode_chats(read_chats(data)[0], encoder, source="", max_length=64, over_length="error")
    total = 0.0
    with torch.no_grad():
        for row in dataset.rows:
            labels = [token if trained else -100 for token, trained in zip(row.ids, row.trained, strict=True)]
            output = model(input_ids=torch.tensor([row.ids]), labels=torch.tensor([labels]))
            total += float(output.loss) * row.targets
    return total / dataset.targets


def test_bf16_trains_and_exports_in_bf16(trainer: Server, tiny_recipe: RecipeMaker, tmp_path: Path) -> None:
    from safetensors import safe_open

    result = finished(trainer.run(tiny_recipe(precision="bf16", zero_stage=2), tmp_path))
    assert result["eval_before"] - result["eval_after"] >= 0.5
    with safe_open(str(Path(result["output"]) / "model.safetensors"), framework="pt") as file:
        assert str(file.get_tensor("model.norm.weight").dtype) == "torch.bfloat16"


def test_gradient_checkpointing_changes_no_number(trainer: Server, tiny_recipe: RecipeMaker, tmp_path: Path) -> None:
    lora = {"r": 4}
    with_it = trainer.run(tiny_recipe(lora=lora, gradient_checkpointing=True, max_steps=3), tmp_path / "with")
    without = trainer.run(tiny_recipe(lora=lora, max_steps=3), tmp_path / "without")
    assert losses(with_it.lines()) == pytest.approx(losses(without.lines()), abs=1e-5)


# Faults

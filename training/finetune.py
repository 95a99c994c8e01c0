"""The entry point: torchrun --standalone --nproc_per_node N -m training.finetune RECIPE [key=value ...] --output DIR

Stdout carries protocol lines only, all other text goes to stderr. Exit codes: 0 finished, 2 invalid recipe or data,
75 second copy, 76 stopped after saving, 1 other. torchrun itself exits 1 for all but 0: read the last line.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from training.claim import ClaimedFolder, read_claim
from training.errors import EXIT_OK, EXIT_STOPPED, invalid
from training.failures import as_failure
from training.protocol import SEQ_BITS, Emitter
from training.recipe import Recipe, RecipeError, apply_overrides, parse_recipe, resolve_paths
from training.stopping import StopRequest

_WAIT_FOR_RANK_ZERO: Final = 30.0  # seconds; torchrun kills after as many


@dataclass(frozen=True, kw_only=True)
class Start:
    """What the command line and the environment say."""

    recipe: Path
    overrides: tuple[str, ...]
    output: Path
    checkpoints: Path
    rank: int
    attempt: str
    task: str
    deadline: float | None
    deadline_file: Path | None
    resume_step: int | None


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says. Returns the exit code; whatever went wrong is in the `failed` line."""
    protocol_fd = _take_stdout()
    emitter, rank = Emitter(protocol_fd), int(os.environ.get("RANK", "0"))
    stop = StopRequest()
    stop.install()
    folder: Path | None = None
    try:
        start = _parse(argv)
        folder, stop.deadline, stop.file, stop.decides = (
            start.checkpoints,
            start.deadline,
            start.deadline_file,
            not rank,
        )
        recipe = load_recipe(start.recipe, start.overrides)
        claim: ClaimedFolder | None = None
        if rank == 0:
            _check_writable(start.output)
            claim = ClaimedFolder(start.checkpoints, start.attempt, start.task)
            emitter = Emitter(protocol_fd, base=claim.claim.restarts << SEQ_BITS)
            stop.act_at_once(lambda: emitter.emit("stopped", step=0, reason="sigterm", checkpoint=None))
        return _train(start, recipe, emitter if rank == 0 else None, claim, stop)
    except Exception as error:  # noqa: BLE001, every end of a run has a line that says why
        if rank:
            emitter = _emitter_beside_rank_zero(protocol_fd, rank, folder)
        return _fail(error, rank, emitter, stop)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML or JSON file with overrides applied; relative paths are taken from the file's folder.

    Raises TrainingError `bad_recipe`.
    """
    import yaml

    try:
        found: object = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(found, Mapping):
            raise invalid("bad_recipe", f"{path} holds no settings", "write it as `key: value` lines")
        mapping = dict(cast("Mapping[str, Any]", found))
        mapping.pop("plan_for", None)  # a ready recipe suggests its machine there
        return resolve_paths(parse_recipe(apply_overrides(mapping, overrides)), path.absolute().parent)
    except OSError as error:
        raise invalid("bad_recipe", f"the recipe {path} cannot be read: {error.strerror}", "check its path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise invalid("bad_recipe", f"the recipe {path} is neither YAML nor JSON: {error}") from None
    except RecipeError as error:
        raise invalid("bad_recipe", f"{path}: {error}", "correct the recipe and launch again") from None


def _check_writable(output: Path) -> None:
    """Fail now, and not after hours, if the export has nowhere to go."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=output):
        pass


def _train(
    start: Start, recipe: Recipe, emitter: Emitter | None, claim: ClaimedFolder | None, stop: StopRequest
) -> int:
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # half lines again; read when the hub is imported
    # Imported here, for it takes seconds: the claim is made and SIGTERM is heard before.
    from training import sft

    run = sft.Run(
        recipe=recipe,
        output=start.output,
        checkpoints=start.checkpoints,
        attempt=start.attempt,
        resume_step=start.resume_step,
        emitter=emitter,
        claim=claim,
        stop=stop,
    )
    reason = sft.train(run)
    sft.dist.destroy_process_group()
    return EXIT_OK if reason is None else EXIT_STOPPED


def _fail(error: Exception, rank: int, emitter: Emitter, stop: StopRequest) -> int:
    """Write the `failed` line, if this rank is the one to do it."""
    failure = as_failure(error)
    if rank == 0 or not (failure.shared or failure.code == "rank_lost"):
        fields = {"code": failure.code, "message": failure.message, "hint": failure.hint, "rank": rank}
        emitter.emit("failed", **fields, step=None)
    if rank:
        # Rank 0 must be the first to end: torchrun ends all others as soon as one fails, and its line would be lost.
        stop.act_at_once(lambda: None)
        time.sleep(_WAIT_FOR_RANK_ZERO if failure.shared else 0)
    return failure.exit_code


def _emitter_beside_rank_zero(protocol_fd: int, rank: int, folder: Path | None) -> Emitter:
    """Numbers above any that rank 0 reaches in this start, since it does not know of this rank's line."""
    claim = read_claim(folder) if folder is not None else None
    restarts = claim.restarts if claim is not None else 0
    return Emitter(protocol_fd, base=(restarts << SEQ_BITS) + (1 << (SEQ_BITS - 1)) + rank)


def _take_stdout() -> int:
    """Keep stdout for protocol lines alone: everything else that writes there, also from C, goes to stderr.

    And let stderr pass whole lines only, for both may end in one file where half a line would spoil the next one.
    """
    sys.stdout.flush()
    protocol_fd = os.dup(1)
    os.dup2(2, 1)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(line_buffering=True, write_through=False, errors="backslashreplace")
    sys.stdout = sys.stderr
    return protocol_fd


def _parse(argv: Sequence[str] | None) -> Start:
    parser = argparse.ArgumentParser(
        prog="training.finetune", description="Fine-tune a language model as a recipe says."
    )
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="recipe file, YAML or JSON")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change, dotted if nested")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the adapter or model goes")
    parser.add_argument("--checkpoints", type=Path, metavar="DIR", help="default: DIR/checkpoints in --output")
    parsed = parser.parse_intermixed_args(argv)
    resume_step, deadline_file = _number("AINFINITY_RESUME_STEP"), os.environ.get("AINFINITY_DEADLINE_FILE")
    output = parsed.output.absolute()
    return Start(
        recipe=parsed.recipe,
        overrides=tuple(parsed.overrides),
        output=output,
        checkpoints=(parsed.checkpoints or output / "checkpoints").absolute(),
        rank=int(os.environ.get("RANK", "0")),
        attempt=os.environ.get("AINFINITY_ATTEMPT", ""),
        task=os.environ.get("SKYPILOT_TASK_ID", ""),
        deadline=_number("AINFINITY_DEADLINE"),
        deadline_file=Path(deadline_file).expanduser() if deadline_file else None,
        resume_step=None if resume_step is None else int(resume_step),
    )


def _number(variable: str) -> float | None:
    text = os.environ.get(variable, "")
    try:
        return float(text) if text else None
    except ValueError:
        raise invalid("bad_recipe", f"the environment variable {variable} is {text!r}", "set it to a number") from None


if __name__ == "__main__":
    sys.exit(main())

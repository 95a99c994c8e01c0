"""Where on the machine an attempt's files lie. A leading `~` is the home there, which on Slurm is the cluster's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ainfinity.schema.training_job import Resources

#: Where a bucket is mounted on every machine of the job.
BUCKET_MOUNT: Final = "~/.ainfinity/storage"


@dataclass(frozen=True, slots=True)
class Places:
    """The files of one attempt on its machine."""

    #: Its own folder on each node: recipe, inputs, a copy of the trainer.
    folder: str
    #: Where the trainer writes its export and its checkpoints; the same for every attempt of the job.
    output: str
    checkpoints: str
    #: Holds the deadline in Unix seconds, or `none`, once it was changed after the launch.
    deadline: str
    #: Whether output and checkpoints outlive the machine.
    durable: bool


def find_places(resources: Resources, job_id: str, attempt: str) -> Places:
    """Return where the attempt's files lie: below `resources.storage`, or on the machine's own disk without one."""
    folder = f"~/.ainfinity/attempts/{attempt}"
    storage = resources.storage
    if storage is None:
        job = f"~/.ainfinity/jobs/{job_id}"
        return Places(folder, f"{job}/output", f"{job}/checkpoints", f"{folder}/deadline", durable=False)
    job = f"{BUCKET_MOUNT if is_bucket(storage) else storage.rstrip('/')}/{job_id}"
    return Places(folder, f"{job}/output", f"{job}/checkpoints", f"{job}/{attempt}.deadline", durable=True)


def is_bucket(storage: str) -> bool:
    """Whether `resources.storage` is the URL of a bucket and no path."""
    return "://" in storage

"""What `--json` writes, as published models. `ainfinity schema NAME` writes their JSON Schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from ainfinity.cli.doctor import Check
from ainfinity.cli.output import say, write, write_json
from ainfinity.core.constants import EXIT_OK
from ainfinity.core.exceptions import NotFound
from ainfinity.schema.data import DatasetRow
from ainfinity.schema.event import Event
from ainfinity.schema.job_file import ReadyRecipe
from ainfinity.schema.machines import Adoptables, Gpus, Orphans, SkyStatus
from ainfinity.schema.outside import OrphanRow
from ainfinity.schema.training_job import JobSpec
from ainfinity.schema.views import JobDetail, JobRow, MetricPoint, PlanView, WorkerStatus


@dataclass(frozen=True, slots=True)
class Error:
    """What went wrong: a stable code, and words. `field` names the setting or option at fault."""

    code: str
    message: str
    hint: str = ""
    field: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """What any command writes to stderr, in place of its document, when it fails."""

    error: Error


@dataclass(frozen=True, slots=True)
class DryRun:
    """`launch --dry-run`. `task` is the SkyPilot task; `refused` says why it could not be launched from here."""

    spec: JobSpec
    plan: PlanView | None
    task: dict[str, Any] | None
    refused: Error | None


@dataclass(frozen=True, slots=True)
class NewJob:
    """`new`. `longest` is in characters; without a `path` nothing was written."""

    path: str | None
    text: str
    rows: int
    longest: int


@dataclass(frozen=True, slots=True)
class Script:
    """`show --reproduce`."""

    job: str
    script: str


@dataclass(frozen=True, slots=True)
class Log:
    """`logs`."""

    attempt: int
    lines: list[str]


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of `logs --follow`."""

    attempt: int
    line: str


@dataclass(frozen=True, slots=True)
class Changed:
    """`cancel` and `delete`: the jobs that it worked for, and the errors of the others."""

    jobs: list[JobRow]
    errors: list[Error]


@dataclass(frozen=True, slots=True)
class Pulled:
    """`pull`."""

    job: str
    what: str
    paths: list[str]


@dataclass(frozen=True, slots=True)
class KeptData:
    """`data show`. `path` is the file that holds it here."""

    dataset: DatasetRow
    path: str


@dataclass(frozen=True, slots=True)
class SecretNames:
    """`secrets list`. `place` is where new values go."""

    secrets: list[str]
    place: str


@dataclass(frozen=True, slots=True)
class Checks:
    """`doctor`. `ok` is whether no check failed."""

    ok: bool
    checks: list[Check]


#: The document of each command; `NAME-line` is one line of what it writes with --follow.
MODELS: Final[dict[str, Any]] = {
    "job-file": JobSpec,
    "error": Failure,
    "new": NewJob,
    "launch": JobRow,
    "launch-dry-run": DryRun,
    "list": list[JobRow],
    "show": JobDetail,
    "show-reproduce": Script,
    "logs": Log,
    "logs-line": LogLine,
    "metrics": list[MetricPoint],
    "events": list[Event],
    "events-line": Event,
    "approve": JobRow,
    "reject": JobRow,
    "cancel": Changed,
    "retry": JobRow,
    "delete": Changed,
    "wait": JobRow,
    "pull": Pulled,
    "extend": JobRow,
    "keep": JobRow,
    "teardown": JobRow,
    "gpus": Gpus,
    "orphans": Orphans,
    "orphans-answer": OrphanRow,
    "adopt": JobRow,
    "adopt-list": Adoptables,
    "data-add": DatasetRow,
    "data-list": list[DatasetRow],
    "data-show": KeptData,
    "data-rm": DatasetRow,
    "sky": SkyStatus,
    "recipes": list[ReadyRecipe],
    "recipes-one": ReadyRecipe,
    "secrets-list": SecretNames,
    "doctor": Checks,
    "worker": WorkerStatus,
}


def json_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of a document. Errors: NotFound."""
    from pydantic import TypeAdapter

    if name not in MODELS:
        raise NotFound(f"There is no schema {name!r}.", hint=f"Known: {', '.join(MODELS)}.")
    schema: dict[str, Any] = TypeAdapter(MODELS[name]).json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"ainfinity {name}"} | schema


def write_schema(name: str) -> int:
    """Write one schema, or the names of all."""
    if name:
        write_json(json_schema(name))
        return EXIT_OK
    for known in MODELS:
        write(known)
    say("`ainfinity schema NAME` writes the JSON Schema of one of them.")
    return EXIT_OK

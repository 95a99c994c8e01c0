"""A job as a person writes it: recipe, resources and policy.

`JobSpec` is the one model of a job file. It embeds the trainer's own `Recipe`, so that there is no second schema of
what can be trained. Specs hold names of secrets, never their values.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from ainfinity.core.constants import SECRET_NAME_PATTERN
from ainfinity.schema.sky_task import check_task
from training.recipe import Recipe

#: A job name is a DNS label: it can stand in cluster names, folders and URLs, and in a shell only as itself.
NAME_PATTERN = r"^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$"


def _check_name(name: str) -> str:
    if not re.match(NAME_PATTERN, name) or "\n" in name:
        raise ValueError("must be 1 to 64 of a-z, 0-9 and '-', beginning and ending with a letter or digit")
    return name


def _check_secret(name: str) -> str:
    if not re.fullmatch(SECRET_NAME_PATTERN, name):
        raise ValueError("must be the name of a secret (letters, digits, '_'), not its value")
    return name


_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(value: Any) -> Any:
    """Return seconds for `90`, `90s`, `20m`, `2h` or `1.5d`; anything else as it is, for pydantic to refuse."""
    if isinstance(value, str):
        found = _DURATION.fullmatch(value.strip())
        if found is None:
            raise ValueError("must be a duration such as 90s, 20m, 2h or 1d")
        return float(found["number"]) * _SECONDS[found["unit"]]
    return value


#: Seconds; people write `20m`, `2h`.
Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
JobName = Annotated[str, AfterValidator(_check_name)]
SecretName = Annotated[str, AfterValidator(_check_secret)]
Tag = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w.:=/-]+$")]


class _Frozen(BaseModel):
    # Input is hidden because a refused value may be a secret.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class Resources(_Frozen):
    """Where a job may run and what it needs there."""

    infra: str = Field(
        default="local",
        pattern=r"^[a-z0-9][A-Za-z0-9_/.*-]{0,127}$",
        description="`local`, or an infrastructure as SkyPilot names it: `slurm/cluster`, `k8s`, `aws/us-east-1`; "
        "`any`: SkyPilot takes the cheapest.",
    )
    gpus: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z][A-Za-z0-9_.-]*(:[0-9]+)?$",
        description="Accelerators a node, as `H100:8`; unset means CPU, or on this machine the GPUs it has.",
    )
    nodes: int = Field(default=1, ge=1, le=1024, description="Number of nodes.")
    processes: int | None = Field(
        default=None, ge=1, le=64, description="Ranks a node; by default one a GPU, or one on a CPU."
    )
    cpus: str | None = Field(default=None, pattern=r"^[0-9]+(\.[0-9]+)?\+?$", description="CPUs a node: `8`, `8+`.")
    memory: str | None = Field(default=None, pattern=r"^[0-9]+(\.[0-9]+)?[+x]?$", description="GiB a node, as `32+`.")
    disk_size: int | None = Field(default=None, ge=10, le=65536, description="Disk in GiB.")
    image: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:-]*(@sha256:[0-9a-f]{64})?$",
        description="Container image, as `docker:name:tag`.",
    )
    spot: bool = Field(default=False, description="Whether a preemptible machine will do.")
    mode: Literal["auto", "managed", "cluster"] = Field(
        default="auto",
        description="`managed`: SkyPilot recovers the job on a new machine; `cluster`: one machine, ended by us; "
        "`auto`: managed where a controller can run and `storage` is set, else cluster.",
    )
    storage: str | None = Field(
        default=None,
        pattern=r"^(/[\w./+,=@%-]*|(s3|gs|r2|https|oci|nebius|cos|azure)://[\w./+,=@%-]+)$",
        description="Durable place for checkpoints and the model that every machine of the job sees: a shared folder, "
        "or a bucket as `s3://bucket/path`. Unset: the machine's own disk, from which the model is brought home.",
    )
    python: str | None = Field(
        default=None,
        pattern=r"^/[^\s'\"\\$`;&|<>]*$",
        description="Interpreter on the machine that has the trainer's packages; unset means our own environment.",
    )

    @property
    def gpu_count(self) -> int:
        """GPUs a node; 0 where none is asked for."""
        if self.gpus is None:
            return 0
        _, _, count = self.gpus.partition(":")
        return int(count) if count else 1

    @property
    def ranks(self) -> int:
        """Trainer processes a node."""
        return self.processes or self.gpu_count or 1

    @property
    def slots(self) -> int:
        """How many of the local backend's slots the job takes."""
        return max(1, self.gpu_count)


class Policy(_Frozen):
    """What may be done with the job and for it, and when a person is asked."""

    approval: Literal["auto", "required"] = Field(
        default="auto", description="`required`: a person approves the plan before it is launched."
    )
    priority: int = Field(default=0, ge=-100, le=100, description="Higher goes first, equal ones in order.")
    retries: int = Field(default=0, ge=0, le=100, description="New attempts after a failure of the job itself.")
    recover: Literal["auto", "never"] = Field(
        default="auto",
        description="After the machine was preempted or vanished: go on from the checkpoint, or fail.",
    )
    max_duration: Duration | None = Field(
        default=None,
        description="Seconds, or `4h`, after which an attempt checkpoints and ends, on its own machine too.",
    )
    stuck_after: Duration | None = Field(
        default=None,
        description="Seconds, or `20m`, without a new step, heartbeat or log line, after which `on_stuck` is done.",
    )
    on_stuck: Literal["alert", "restart", "stop"] = Field(
        default="alert", description="Tell the owner, restart from the newest checkpoint, or end the job."
    )
    keep_on_failure: Duration | None = Field(
        default=None, description="Seconds, or `2h`, for which the machine of a failed attempt is kept to look at."
    )
    max_cost: float | None = Field(default=None, gt=0, description="Dollars the job may cost in total.")
    notify: Literal["finish", "all", "none"] = Field(default="finish", description="Which events the owner is told.")

    @model_validator(mode="before")
    @classmethod
    def _take_earlier_words(cls, data: Any) -> Any:
        """Specs stored before `recover` was there call it `on_lost`."""
        if isinstance(data, dict) and "on_lost" in data:
            given = cast("dict[str, Any]", data)
            word = {"resume": "auto", "fail": "never"}.get(str(given["on_lost"]), given["on_lost"])
            return {**{key: value for key, value in given.items() if key != "on_lost"}, "recover": word}
        return cast("Any", data)


class JobSpec(_Frozen):
    """One job. Immutable: a changed wish is a new job, or a retry with named changes."""

    name: JobName = Field(description="Unique among live jobs; part of cluster and folder names.")
    recipe: Recipe | None = Field(default=None, description="What to train.")
    sky: dict[str, Any] | None = Field(
        default=None, description="Instead of a recipe: a SkyPilot task, launched as it is, every field unchanged."
    )
    resources: Resources = Field(default_factory=Resources, description="Where it may run.")
    policy: Policy = Field(default_factory=Policy, description="What may be done for it.")
    tags: tuple[Tag, ...] = Field(default=(), max_length=32, description="For finding and grouping.")
    note: str = Field(default="", max_length=2000, description="For people.")
    secrets: tuple[SecretName, ...] = Field(
        default=(), max_length=32, description="Names of stored secrets that the trainer gets as environment variables."
    )
    recipe_name: str | None = Field(default=None, max_length=128, description="The ready recipe this came from.")

    @field_validator("note")
    @classmethod
    def _no_control_characters(cls, text: str) -> str:
        if any(ord(character) < 32 and character not in "\n\t" for character in text):
            raise ValueError("must not hold control characters")
        return text

    @model_validator(mode="after")
    def _check_together(self) -> JobSpec:
        if self.recipe is None and self.sky is None:
            raise ValueError("recipe: is missing; give a recipe to train, or a SkyPilot task under sky")
        if self.recipe is not None and self.sky is not None:
            raise ValueError("recipe: cannot stand beside a SkyPilot task; remove it, or sky")
        if self.sky is not None and self.resources.infra == "local":
            raise ValueError("resources.infra: a SkyPilot task does not run on this machine; set where it runs")
        if self.sky is not None:
            check_task(self.sky)
        if self.resources.infra == "local" and (self.resources.mode != "auto" or self.resources.storage is not None):
            name = "storage" if self.resources.storage is not None else "mode"
            raise ValueError(f"resources.{name}: this machine keeps its jobs itself; remove it, or set resources.infra")
        if self.recipe is not None and self.resources.mode == "managed" and self.resources.storage is None:
            raise ValueError(
                "resources.storage: a managed job moves to another machine, which must see its checkpoints; set a "
                "bucket or a shared folder, or mode to cluster"
            )
        if self.resources.infra == "local" and self.resources.nodes > 1:
            raise ValueError("resources.nodes: this machine is one node; set resources.infra, or nodes to 1")
        if self.resources.infra == "local" and self.resources.spot:
            raise ValueError("resources.spot: this machine cannot be preempted; remove it, or set resources.infra")
        return self

    @property
    def model(self) -> str:
        """What is trained, for people; "" for a SkyPilot task."""
        return self.recipe.model if self.recipe is not None else ""

    def as_json(self) -> dict[str, Any]:
        """Return the spec as plain JSON values, from which `JobSpec.model_validate` gives it back."""
        return self.model_dump(mode="json")

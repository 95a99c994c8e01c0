"""A plan: a costed, hashed way to carry out a job."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Candidate(BaseModel):
    """One place where the job could run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    infra: str
    gpus: str | None = None
    nodes: int = 1
    price_per_hour: float | None = Field(default=None, description="Dollars; None means unknown, 0 means free.")


class Plan(BaseModel):
    """What an approval binds to. Equal inputs give an equal hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidate: Candidate
    data_sha256: str | None = None
    data_rows: int | None = None
    eval_data_sha256: str | None = None
    steps: int | None = Field(default=None, description="Optimizer steps where they can be told before tokenising.")
    upper_seconds: float | None = Field(default=None, description="How long it takes at most, where that can be told.")
    spec_sha256: str

    @property
    def plan_hash(self) -> str:
        """The first 16 hex digits of the SHA-256 of the plan's canonical JSON."""
        return digest(self.model_dump(mode="json"))[:16]


def digest(value: Any) -> str:
    """Return the SHA-256 of `value` as canonical JSON (sorted keys, no white space)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()

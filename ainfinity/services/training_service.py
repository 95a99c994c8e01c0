"""The verbs on jobs. A verb records a wish and what it means at once; the engine carries it out."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Connection

from ainfinity.core.config import Settings
from ainfinity.core.exceptions import (
    ApprovalNeeded,
    FolderUnwritable,
    KeyReused,
    NameTaken,
    NotFound,
    PlanChanged,
    WrongState,
)
from ainfinity.core.redact import redact
from ainfinity.core.utils import make_folder
from ainfinity.domain.goodput import goodput
from ainfinity.domain.places import backend_of
from ainfinity.schema.actor import Actor, Role
from ainfinity.schema.document import Document
from ainfinity.schema.event import Event, EventType
from ainfinity.schema.plan import Plan, digest
from ainfinity.schema.problems import refuse_secrets, validate
from ainfinity.schema.states import ATTEMPT_LIVE, JOB_LIVE, JobState
from ainfinity.schema.training_job import JobSpec
from ainfinity.schema.views import AttemptRow, JobDetail, JobQuery, JobRow, PlanView
from ainfinity.services import planning
from ainfinity.services.data import look_at
from ainfinity.services.verbs import MachineVerbs
from ainfinity.services.whereabouts import tell_places
from ainfinity.store import events, jobs, metrics
from ainfinity.store.jobs import PLAN
from ainfinity.store.store import Store

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def random_id() -> str:
    """Return a job id: 10 characters of lower-case base32."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(10))


class TrainingService(MachineVerbs):
    """Launch, watch and end jobs.

    `missing_secrets` tells which of an owner's named secrets are not stored; `jobs_dir` is where a job's folder lies;
    `keep_data` looks at a data file and keeps its bytes for the launch.
    """

    def __init__(
        self,
        store: Store,
        *,
        backends: tuple[str, ...] = ("local",),
        new_id: Callable[[], str] = random_id,
        missing_secrets: Callable[[Sequence[str]], list[str]] | None = None,
        jobs_dir: Path | None = None,
        keep_data: planning.Look = look_at,
        default_deadline: float = Settings.default_deadline,
    ) -> None:
        self.store = store
        self.backends = backends
        self.new_id = new_id
        self.missing_secrets = missing_secrets
        self.jobs_dir = jobs_dir
        self.keep_data = keep_data
        self.default_deadline = default_deadline

    def plan(self, spec: JobSpec) -> PlanView:
        """Validate and plan without storing anything. Errors: DataInvalid, InvalidSpec, NotSupported."""
        refuse_secrets(Document(spec.as_json()))
        plan, findings = planning.make_plan(spec, self.backends, default_deadline=self.default_deadline)
        return planning.view(plan, spec, findings)

    def launch_job(
        self,
        spec: JobSpec,
        key: str,
        actor: Actor,
        *,
        plan_hash: str = "",
        provenance: dict[str, Any] | None = None,
    ) -> JobRow:
        """Store a job and queue it, or ask for its approval. The same `key` twice is one job.

        Errors:
            KeyReused, NameTaken, PlanChanged, DataInvalid, NotSupported, NotAllowed; NotFound for a secret;
            InvalidSpec for one that holds the value of a secret.
        """
        actor.must_be(Role.LAUNCHER, "launch jobs")
        refuse_secrets(Document(spec.as_json()))  # whatever front made it, and whether or not it read a file
        key_sha256 = digest([spec.as_json(), actor.name])
        with self.store.read() as connection:
            known = self._same_key(connection, key, key_sha256)
        if known is not None:
            return known
        plan, _ = planning.make_plan(spec, self.backends, self.keep_data)
        if plan_hash and plan.plan_hash != plan_hash:
            raise PlanChanged("The plan changed since it was shown.", hint="Look at the plan again, then launch.")
        self._check_secrets(spec)
        with self.store.write(durable=True) as connection:
            # Another process may have used the key while the data was read.
            known = self._same_key(connection, key, key_sha256)
            if known is not None:
                return known
            if jobs.live_id_of_name(connection, spec.name) is not None:
                raise NameTaken(
                    f"A job named {spec.name} is live.",
                    hint="Choose another name (name=…), or cancel that one.",
                    field="name",
                )
            job_id = self._insert(connection, spec, plan, key, key_sha256, actor)
            origin = self._keep_diff(job_id, provenance or {})
            self._append(connection, self._first_events(job_id, spec, plan, actor, origin))
            jobs.audit(connection, self.store.clock.now(), actor.name, "launch", job_id, name=spec.name)
            return self._row(connection, job_id)

    def _same_key(self, connection: Connection, key: str, key_sha256: str) -> JobRow | None:
        found = jobs.by_key(connection, key)
        if found is None:
            return None
        job_id, known_sha256 = found
        if known_sha256 != key_sha256:
            raise KeyReused("This idempotency key was used for another job.", hint="Use a new key.", field="key")
        return self._row(connection, job_id)

    def _check_secrets(self, spec: JobSpec) -> None:
        missing = self.missing_secrets(spec.secrets) if self.missing_secrets and spec.secrets else []
        if missing:
            raise NotFound(
                f"There is no secret {missing[0]}.",
                hint=f"Store it: `ainfinity secrets set {missing[0]}`.",
                field="secrets",
            )

    def _insert(
        self, connection: Connection, spec: JobSpec, plan: Plan, key: str, key_sha256: str, actor: Actor
    ) -> str:
        job_id = self.new_id()
        now = self.store.clock.now()
        values = {
            "id": job_id,
            "key": key,
            "key_sha256": key_sha256,
            "name": spec.name,
            "owner": actor.name,
            "team": "local",
            "model": spec.model,
            "infra": spec.resources.infra,
            "gpus": spec.resources.gpus or "",
            "slots": spec.resources.slots,
            "priority": spec.policy.priority,
            "tags": list(spec.tags),
            "note": spec.note,
            "notify": spec.policy.notify,
            "spec": spec.as_json(),
            "state": str(JobState.PLANNING),
            "desired": "run",
            "submitted_at": now,
        }
        jobs.insert(connection, values)
        connection.execute(
            PLAN.insert().values(job_id=job_id, plan_hash=plan.plan_hash, plan=plan.model_dump(mode="json"), at=now)
        )
        return job_id

    def _first_events(
        self, job_id: str, spec: JobSpec, plan: Plan, actor: Actor, origin: dict[str, Any]
    ) -> list[Event]:
        submitted = {"name": spec.name, "provenance": origin | {"data_sha256": plan.data_sha256}}
        planned = {"plan_hash": plan.plan_hash}
        made = [
            self._event(EventType.SUBMITTED, job_id, actor, submitted),
            self._event(EventType.PLANNED, job_id, actor, planned),
        ]
        if spec.policy.approval == "required":
            return [*made, self._event(EventType.APPROVAL_REQUESTED, job_id, actor, planned)]
        # A free local job needs no one's yes; that the policy gave it is recorded all the same.
        by_policy = planned | {"by": "policy"}
        return [
            *made,
            self._event(EventType.APPROVED, job_id, actor, by_policy),
            self._event(EventType.QUEUED, job_id, actor),
        ]

    def _keep_diff(self, job_id: str, provenance: dict[str, Any]) -> dict[str, Any]:
        """Put the uncommitted changes into the job's folder and their path into the provenance.

        Events go to every front; a diff is too large for that.
        """
        origin = dict(provenance)
        diff = origin.pop("diff", "")
        if diff and self.jobs_dir is not None:
            path = make_folder(self.jobs_dir / job_id) / "source.diff"
            try:
                path.write_text(diff, encoding="utf-8", errors="backslashreplace")
            except OSError as error:
                raise FolderUnwritable(
                    f"{path} cannot be written: {error.strerror}.", hint="Free some room, or set AINFINITY_DATA_DIR."
                ) from None
            origin["diff_file"] = str(path)
        return origin

    def _event(self, kind: EventType, job_id: str, actor: Actor, data: dict[str, Any] | None = None) -> Event:
        return Event(kind, job_id, self.store.clock.now(), actor.name, 0, data or {})

    def list_jobs(self, query: JobQuery | None = None) -> list[JobRow]:
        """Return the jobs that fit, newest first."""
        with self.store.read() as connection:
            return jobs.query(connection, query or JobQuery(), self.store.clock.now())

    def get_job_status(self, job: str) -> JobDetail:
        """Return everything about one job. Errors: NotFound, AmbiguousName."""
        with self.store.read() as connection:
            job_id = jobs.resolve(connection, job)
            spec, plan_hash, plan, result = jobs.spec_and_plan(connection, job_id)
            now = self.store.clock.now()
            attempts = tuple(jobs.attempts(connection, job_id, now))
            artifacts = tuple(jobs.artifacts(connection, job_id))
            if self.jobs_dir is not None:
                artifacts = tell_places(artifacts, job_id, self.jobs_dir / job_id, spec, attempts, now)
            return JobDetail(
                job=self._row(connection, job_id),
                spec=spec,
                plan=plan or None,
                plan_hash=plan_hash,
                attempts=attempts,
                artifacts=artifacts,
                result=result,
                provenance=jobs.provenance(connection, job_id),
                goodput=self._goodput(connection, job_id, attempts),
            )

    def _goodput(self, connection: Connection, job_id: str, attempts: Sequence[AttemptRow]) -> float | None:
        now = self.store.clock.now()
        points = metrics.read_points(connection, job_id, ("step_seconds",))
        paid = [(one.paid_from, now if one.finished_at is None else one.finished_at) for one in attempts]
        return goodput(((point.step, point.values.get("step_seconds")) for point in points), paid)

    def stop_job(self, job: str, actor: Actor) -> JobRow:
        """Wish a job ended. One without a live attempt is over at once; repeating it changes nothing.

        Errors:
            WrongState: the job is over.
        """
        actor.must_be(Role.LAUNCHER, "cancel jobs")
        with self.store.write() as connection:
            job_id = jobs.resolve(connection, job)
            row = self._row(connection, job_id)
            if row.state == JobState.CANCELLING:
                return row
            if row.state not in JOB_LIVE:
                raise WrongState(f"{row.name} is {row.state}: there is nothing to cancel.")
            made = [self._event(EventType.CANCEL_REQUESTED, job_id, actor)]
            self._must_be_ours(row)
            attempt = events.get_attempt(connection, job_id, row.attempt)
            if attempt is None or attempt.state not in ATTEMPT_LIVE:
                made.append(self._event(EventType.CANCELLED, job_id, actor))
            self._append(connection, made)
            jobs.audit(connection, self.store.clock.now(), actor.name, "cancel", job_id)
            return self._row(connection, job_id)

    def retry_job(self, job: str, actor: Actor, *, from_step: int | None = None) -> JobRow:
        """Queue a failed or cancelled job again as a new attempt, from its newest checkpoint or the given one.

        Errors:
            WrongState: it is live or succeeded. NotFound: there is no such checkpoint. NameTaken.
            ApprovalNeeded: it was never approved; a retry is no way around that.
        """
        actor.must_be(Role.LAUNCHER, "retry jobs")
        with self.store.write(durable=True) as connection:
            job_id = jobs.resolve(connection, job)
            row = self._row(connection, job_id)
            if row.state not in (JobState.FAILED, JobState.CANCELLED):
                raise WrongState(
                    f"{row.name} is {row.state}: only a failed or cancelled job can be retried.",
                    hint="To train again with changes, give them: `ainfinity retry JOB key=value`.",
                )
            if row.origin:
                raise WrongState(
                    f"{row.name} was started with plain SkyPilot.", hint="Launch it from here to have it tried again."
                )
            if jobs.live_id_of_name(connection, row.name) is not None:
                raise NameTaken(f"Another job named {row.name} is live.", hint="Wait for it, or cancel it.")
            spec, *_ = jobs.spec_and_plan(connection, job_id)
            if spec["policy"]["approval"] == "required" and not jobs.fold_of(connection, job_id).approved_hash:
                raise ApprovalNeeded(f"{row.name} was never approved.", hint="Launch it again and have it approved.")
            if from_step is not None:
                self._check_step(connection, job_id, from_step, spec)
            self._append(connection, [self._event(EventType.RETRIED, job_id, actor, {"from_step": from_step})])
            jobs.audit(connection, self.store.clock.now(), actor.name, "retry", job_id, from_step=from_step)
            return self._row(connection, job_id)

    def _check_step(self, connection: Connection, job_id: str, step: int, spec: Mapping[str, Any]) -> None:
        resources: Mapping[str, Any] = spec["resources"]
        if backend_of(resources["infra"]) == "skypilot" and not resources.get("storage"):
            raise NotFound(
                f"The checkpoint of step {step} lay on the disk of a machine that is gone.",
                hint="Retry without a step: it starts anew. With resources.storage a new launch keeps its checkpoints.",
                field="from",
            )
        left = (row for row in jobs.artifacts(connection, job_id) if row.kind == "checkpoint")
        steps = sorted({row.step for row in left if row.step is not None})
        if step not in steps:
            known = ", ".join(map(str, steps)) or "none"
            raise NotFound(f"There is no checkpoint of step {step}.", hint=f"Known: {known}.", field="from")

    def approve_job(self, job: str, actor: Actor, plan_hash: str = "") -> JobRow:
        """Approve the plan of that hash, or the one that stands, provided that it is still true.

        Errors:
            WrongState: it does not wait for approval. PlanChanged: data or prices changed; the new plan stands now.
        """
        actor.must_be(Role.APPROVER, "approve jobs")
        with self.store.read() as connection:
            job_id = jobs.resolve(connection, job)
            spec, standing, *_ = jobs.spec_and_plan(connection, job_id)
            row = self._row(connection, job_id)
        self._must_await(row)
        plan, _ = planning.make_plan(validate(Document(spec)), self.backends, self.keep_data)
        if plan.plan_hash != standing:
            self._replan(job_id, plan, actor)
        if plan.plan_hash != (plan_hash or standing):
            raise self._changed(row.name, plan.plan_hash, plan_hash or standing)
        with self.store.write(durable=True) as connection:
            self._must_await(self._row(connection, job_id))
            # Someone else may have found the data changed while it was read here.
            now = jobs.fold_of(connection, job_id).plan_hash
            if now != plan.plan_hash:
                raise self._changed(row.name, now, plan.plan_hash)
            approved = self._event(EventType.APPROVED, job_id, actor, {"plan_hash": plan.plan_hash})
            self._append(connection, [approved, self._event(EventType.QUEUED, job_id, actor)])
            jobs.audit(connection, self.store.clock.now(), actor.name, "approve", job_id, plan_hash=plan.plan_hash)
            return self._row(connection, job_id)

    def _replan(self, job_id: str, plan: Plan, actor: Actor) -> None:
        now = self.store.clock.now()
        with self.store.write() as connection:
            self._must_await(self._row(connection, job_id))
            jobs.put_plan(connection, job_id, plan.plan_hash, plan.model_dump(mode="json"), now)
            self._append(connection, [self._event(EventType.PLANNED, job_id, actor, {"plan_hash": plan.plan_hash})])

    def _changed(self, name: str, now: str, wanted: str) -> PlanChanged:
        return PlanChanged(
            f"The plan is {now} now, not {wanted}.", hint=f"Look at it with `ainfinity show {name}`, then approve it."
        )

    def _must_await(self, row: JobRow) -> None:
        if row.state != JobState.AWAITING_APPROVAL:
            raise WrongState(f"{row.name} is {row.state}: it does not wait for approval.")

    def reject_job(self, job: str, actor: Actor, reason: str) -> JobRow:
        """Reject a job that waits for approval. Errors: WrongState."""
        actor.must_be(Role.APPROVER, "reject jobs")
        reason = redact(reason)
        with self.store.write() as connection:
            job_id = jobs.resolve(connection, job)
            self._must_await(self._row(connection, job_id))
            data = {"code": "rejected", "message": reason}
            self._append(connection, [self._event(EventType.REJECTED, job_id, actor, data)])
            jobs.audit(connection, self.store.clock.now(), actor.name, "reject", job_id, reason=reason)
            return self._row(connection, job_id)

    def delete_job(self, job: str, actor: Actor) -> None:
        """Remove the record of a job that is over; its files stay. Errors: WrongState."""
        actor.must_be(Role.LAUNCHER, "delete jobs")
        with self.store.write() as connection:
            job_id = jobs.resolve(connection, job)
            row = self._row(connection, job_id)
            if row.state in JOB_LIVE:
                raise WrongState(f"{row.name} is {row.state}.", hint=f"Cancel it first: `ainfinity cancel {row.name}`.")
            # Told before the rows go, so that every front drops the job too.
            self._append(connection, [self._event(EventType.DELETED, job_id, actor, {"name": row.name})])
            jobs.delete(connection, job_id)
            jobs.audit(connection, self.store.clock.now(), actor.name, "delete", job_id, name=row.name)

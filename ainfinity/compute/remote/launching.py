"""Launching under a name, going on with a launch that died, and ending what bears the name."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any, Final, cast

from ainfinity.compute.port import LaunchRequest
from ainfinity.compute.remote.attempts import Attempt, Attempts
from ainfinity.compute.remote.chores import Chores
from ainfinity.compute.remote.record import End, Record
from ainfinity.compute.remote.rows import Gone, Mode, QueueRow, Sky, SkyRefused
from ainfinity.compute.remote.states import CONTROLLER_FAILED, MANAGED, state_of
from ainfinity.core.clock import Clock
from ainfinity.core.exceptions import AinfinityError, ComputeUnreachable
from ainfinity.domain.observation import Phase
from ainfinity.schema.document import Document
from ainfinity.schema.problems import validate
from skylaunch.render import Launch, can_autodown, render_task

_log = logging.getLogger(__name__)

#: Seconds between two launches of the same name after the API server was killed in the midst of one.
_AGAIN: Final = 10.0
#: Minutes without a job after which the machine of a user's own task ends itself.
_IDLE: Final = 60
#: Requests that make something.
_LAUNCHES: Final = frozenset({"launch", "jobs.launch"})


def choose_mode(spec: Mapping[str, Any], sky: Sky) -> Mode:
    """Return how an attempt is to run: managed where its output outlives its machine and a controller can run.

    Errors:
        SkyRefused: `managed` is wished for a job whose output would be lost with each machine.
        ComputeUnreachable: SkyPilot does not tell whether a controller can run.
    """
    resources = cast("Mapping[str, Any]", spec.get("resources") or {})
    wish = resources.get("mode", "auto")
    durable = bool(resources.get("storage")) or spec.get("sky") is not None
    if wish == "cluster":
        return "cluster"
    if wish == "managed" and not durable:
        raise SkyRefused(
            "resources.mode: a managed job moves between machines, and its model would be lost with each.",
            hint="Set resources.storage to a bucket or a shared folder, or resources.mode to cluster.",
            field="resources.mode",
            kind="bad_task",
        )
    return "managed" if wish == "managed" or (durable and sky.can_manage()) else "cluster"


class Launcher:
    """Sends attempts to the API server, each under its name and only where nothing bears that yet."""

    def __init__(
        self, sky: Sky, clock: Clock, attempts: Attempts, chores: Chores, idle_minutes: int | None = None
    ) -> None:
        self._sky = sky
        self._clock = clock
        self._attempts = attempts
        self._chores = chores
        self._idle_minutes = idle_minutes

    def launch(self, request: LaunchRequest) -> str:
        """Have SkyPilot launch an attempt, or find it launched, and return its handle. Errors: as of the port."""
        attempt = self._attempts.get(request.name)
        if attempt is None:
            mode = choose_mode(request.spec, self._sky)
            attempt = self._attempts.get_or_make(Record(request.name, mode, job=request.job_id))
        record = attempt.record
        resources = cast("Mapping[str, Any]", request.spec.get("resources") or {})
        with attempt.lock:
            if record.stopped_at is not None:
                raise SkyRefused(f"{record.name} was stopped before it began.", kind="stopped")
            attempt.request = request
            record.storage = str(resources.get("storage") or "")
            if attempt.posting or record.request_id or record.job_id is not None or record.end is not None:
                return record.handle
            attempt.posting = True
        try:
            self._send(attempt, request)
        except ComputeUnreachable:
            raise
        except AinfinityError:
            with contextlib.suppress(OSError):
                self._attempts.forget(record.name)  # nothing of it is there
            raise
        return record.handle

    def _send(self, attempt: Attempt, request: LaunchRequest) -> None:
        """Find what is there under the name, or else send it. `posting` is set, and is no longer afterwards."""
        record = attempt.record
        try:
            if not self._find(record) and record.stopped_at is None:
                self._attempts.records.set_deadline(record.name, request.deadline)
                attempt.sent_at = record.launched_at = self._clock.now()
                self._attempts.must_write(attempt)
                record.request_id = self._post(record, request)
                record.taken = True
        finally:
            with attempt.lock:
                attempt.posting = False
                self._attempts.write(attempt)
        if record.stopped_at is not None:
            self.end(record)

    def _post(self, record: Record, request: LaunchRequest) -> str:
        managed = record.mode == "managed"
        spec = validate(Document(dict(request.spec)))
        launch = Launch(
            attempt=request.name,
            job_id=request.job_id,
            deadline=request.deadline,
            recipe=request.recipe or None,
            resume_step=request.resume_step,
            managed=managed,
            idle_minutes=self._idle_minutes,
        )
        task = render_task(spec, launch)
        if managed:
            return self._sky.launch_managed(task, request.name, request.secrets)
        idle = None
        if spec.sky is not None and "autostop" not in (spec.sky.get("resources") or {}):
            # A user's own task is sent unchanged, and is not to leave a machine behind for all that.
            idle = (self._idle_minutes or _IDLE) if can_autodown(spec.resources.infra) else None
        return self._sky.launch(task, request.name, request.secrets, idle)

    def _find(self, record: Record) -> bool:
        """Note in the record what is there under its name: a launch under way, or a job."""
        return self._find_managed(record) if record.mode == "managed" else self._find_on_cluster(record)

    def _find_on_cluster(self, record: Record) -> bool:
        for row in self._sky.requests(record.name):
            if row.name in _LAUNCHES and not row.is_over:
                record.request_id = row.id
                return True
        if not self._sky.clusters([record.name]):
            return False
        record.seen = True
        # A cluster that is not up is where a launch died before its job was handed over: it is gone on with.
        with contextlib.suppress(Gone):
            if job := self.find_job(record):
                record.job_id = job.id
        return record.job_id is not None

    def _find_managed(self, record: Record) -> bool:
        rows = [row for row in self._sky.managed_jobs(name=record.name) if row.name == record.name]
        if rows:
            record.job_id, record.seen = max(row.id for row in rows), True
            return True
        # A request for a managed job does not tell its name. Where one of ours may be on its way, for its reply was
        # lost, a strange one may be that.
        known = {one.record.request_id for one in self._attempts.all()}
        if record.launched_at and any(
            row.name == "jobs.launch" and row.id not in known for row in self._sky.requests()
        ):
            raise ComputeUnreachable(f"{record.name} waits for what becomes of another launch that is on its way.")
        return False

    def find_job(self, record: Record) -> QueueRow | None:
        """Return the attempt's job in its cluster's queue: the known one, else of its name, else the first.

        Of a cluster that is adopted it is the newest.

        Errors:
            Gone: the cluster is not up. ComputeUnreachable: no answer.
        """
        try:
            rows = self._sky.queue(record.sky_name)
        except Gone:
            # After the API server was killed in mid-launch, the cluster is up only once somebody looks.
            self._sky.clusters([record.sky_name], refresh=True)
            rows = self._sky.queue(record.sky_name)
        if record.job_id is not None:
            return next((row for row in rows if row.id == record.job_id), None)
        if record.is_adopted:
            return rows[-1] if rows else None
        return next((row for row in rows if row.name == record.name), rows[0] if rows else None)

    def go_on(self, attempt: Attempt) -> None:
        """Launch again, under its name, what died with the API server; SkyPilot goes on with what is there."""
        record, now = attempt.record, self._clock.now()
        with attempt.lock:
            if attempt.posting or record.request_id or record.stopped_at is not None or record.end is not None:
                return
            if record.is_adopted:  # its cluster has no job, and none is owed to it
                return
            request = attempt.request
            if request is None:  # launched by a worker before this one, which had the secrets
                record.end = End(Phase.VANISHED.value, reason="its launch died with SkyPilot's API server", at=now)
                self._attempts.write(attempt)
                return
            if now - attempt.sent_at < _AGAIN:
                return
            attempt.posting = True
        if not self._chores.begin(f"launch {record.name}", lambda: self._send_again(attempt, request)):
            attempt.posting = False

    def _send_again(self, attempt: Attempt, request: LaunchRequest) -> None:
        _log.warning("going on with the launch of %s", attempt.record.name)
        try:
            self._send(attempt, request)
        except ComputeUnreachable:
            attempt.sent_at = self._clock.now()
            raise
        except AinfinityError as error:
            kind = error.kind if isinstance(error, SkyRefused) else error.code
            attempt.record.end = End(Phase.EXITED.value, 1, kind, str(error), self._clock.now())

    def stop(self, name: str) -> None:
        """End everything of an attempt, a launch that is under way first. Errors: ComputeUnreachable."""
        attempt = self._attempts.get(name)
        if attempt is None:
            known = self._attempts.stranger(name)
            for record in (known,) if known else (Record(name, "cluster"), Record(name, "managed")):
                self.end(record)
            return
        record = attempt.record
        with attempt.lock:
            if record.gone:
                return
            if record.stopped_at is None:
                record.stopped_at = self._clock.now()
                self._attempts.write(attempt)
        self.end(record)

    def end(self, record: Record) -> None:
        """Cancel what launches it and take down what is there. Errors: ComputeUnreachable."""
        if record.mode == "cluster":
            for row in self._sky.requests(record.sky_name):
                if row.name in _LAUNCHES and not row.is_over:
                    self._sky.cancel_request(row.id)
            self._sky.down(record.sky_name)
            return
        if record.request_id:
            self._sky.cancel_request(record.request_id)
        ids = None if record.job_id is None else [record.job_id]
        for row in self._sky.managed_jobs(ids=ids, name="" if ids else record.name):
            is_ours = row.id == record.job_id or row.name == record.name
            if is_ours and row.status == CONTROLLER_FAILED:
                self._sky.down(row.cluster)
                record.swept = True
            elif is_ours and not state_of(MANAGED, row.status).is_end and row.status != "CANCELLING":
                self._sky.cancel_managed(row.id)

"""The calls that change something in the world, each between a record before and a record after."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ainfinity.compute.port import Compute
from ainfinity.core.config import Settings
from ainfinity.core.exceptions import AinfinityError, ComputeUnreachable, Unreachable
from ainfinity.core.redact import redact
from ainfinity.domain.fold import AttemptFold, JobFold
from ainfinity.engine.fence import Fence
from ainfinity.engine.launch import SecretSource, build_request
from ainfinity.engine.record import Recorder
from ainfinity.schema.actor import ENGINE
from ainfinity.schema.document import Document
from ainfinity.schema.event import Event, EventType
from ainfinity.schema.problems import validate
from ainfinity.schema.states import AttemptState, Desired
from ainfinity.store import events, jobs

_log = logging.getLogger(__name__)


class Caller:
    """Makes calls to backends as the lease's owner only."""

    def __init__(
        self,
        fence: Fence,
        recorder: Recorder,
        settings: Settings,
        secrets: SecretSource,
        probe: Callable[[str], None],
    ) -> None:
        self.fence = fence
        self.recorder = recorder
        self.settings = settings
        self.secrets = secrets
        self.probe = probe

    def launch(self, compute: Compute, job_id: str, number: int) -> None:
        """Launch an attempt whose intent is recorded, and record its handle.

        No answer leaves the intent as it is: a later tick adopts what it finds or, past the grace, calls again.
        """
        self.probe("launch:intended")
        with self.fence.store.read() as connection:
            attempt = events.get_attempt(connection, job_id, number)
            job = jobs.fold_of(connection, job_id)
            spec, *_ = jobs.spec_and_plan(connection, job_id)
            owner = jobs.get(connection, job_id).owner
        if attempt is None or attempt.state != AttemptState.INTENDED or job.desired != Desired.RUN:
            return
        try:
            request = build_request(job, attempt, validate(Document(spec)), owner, self.settings, self.secrets)
        except Unreachable as error:
            _log.warning("the launch of %s waits: %s", attempt.name, error)  # a locked keyring, for example
            return
        except AinfinityError as error:
            self._refused(job, attempt, error)
            return
        # Not within the try: trouble with the lease or the database is no refusal of the job.
        self.fence.must_hold()
        try:
            handle = compute.launch(request)
        except ComputeUnreachable as error:
            _log.warning("no answer to the launch of %s: %s", attempt.name, error)
            return
        except AinfinityError as error:
            self._refused(job, attempt, error)
            return
        self.probe("launch:called")
        now = self.fence.store.clock.now()
        data = {"handle": handle}
        self.recorder.append([Event(EventType.ATTEMPT_LAUNCHED, job_id, now, ENGINE.name, number, data)])
        self.probe("launch:recorded")

    def _refused(self, job: JobFold, attempt: AttemptFold, error: AinfinityError) -> None:
        """The backend says that it did not and will not start this: a new attempt would only be refused again."""
        now = self.fence.store.clock.now()
        data = {"code": error.code, "message": redact(str(error)), "reason": redact(str(error)), "outcome": "failed"}
        ended = Event(EventType.ATTEMPT_FAILED, job.id, now, ENGINE.name, attempt.number, data)
        with self.fence.write() as connection:
            cancelled = jobs.fold_of(connection, job.id).desired == Desired.CANCEL
            kind = EventType.CANCELLED if cancelled else EventType.FAILED
            verdict = Event(kind, job.id, now, ENGINE.name, 0, {} if cancelled else data)
            events.append(connection, [ended, verdict], self.fence.store.places)

    def stop(self, compute: Compute, name: str) -> None:
        """Ask for the end of an attempt. Without an answer it is asked again on a later tick."""
        self.probe("cancel:stopping")
        self.fence.must_hold()
        try:
            compute.stop(name)
        except ComputeUnreachable as error:
            _log.warning("no answer to the stop of %s: %s", name, error)
        self.probe("cancel:called")

    def release(self, compute: Compute, name: str) -> None:
        """Have the backend forget an attempt that is over."""
        self.probe("cancel:confirmed")
        try:
            compute.release(name)
        except ComputeUnreachable as error:
            _log.warning("no answer to the release of %s: %s", name, error)

"""The calls that change something in the world, each between a record before and a record after."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ainfinity.core.config import Settings
from ainfinity.core.exceptions import AinfinityError, ComputeUnreachable, LeaseLost, Refused, Unreachable
from ainfinity.core.redact import redact
from ainfinity.domain.fold import AttemptFold, JobFold
from ainfinity.engine.backends import Backend
from ainfinity.engine.fence import Fence
from ainfinity.engine.launch import SecretSource, build_request
from ainfinity.engine.record import Recorder
from ainfinity.schema.actor import ENGINE
from ainfinity.schema.document import Document
from ainfinity.schema.event import Event, EventType
from ainfinity.schema.problems import validate
from ainfinity.schema.states import AttemptState, Desired
from ainfinity.store import events, jobs
from ainfinity.store.datasets import with_fixed_data

_log = logging.getLogger(__name__)


class Caller:
    """Makes calls to backends as the lease's owner only.

    Each method begins a call and returns; a remote backend's runs on a thread, and what it came to is recorded when the
    reconciler collects it.
    """

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

    def launch(self, backend: Backend, job_id: str, number: int) -> None:
        """Launch an attempt whose intent is recorded, and record its handle.

        No answer leaves the intent as it is: a later tick adopts what it finds or, past the grace, calls again.
        """
        self.probe("launch:intended")
        with self.fence.store.read() as connection:
            attempt = events.get_attempt(connection, job_id, number)
            job = jobs.fold_of(connection, job_id)
            spec, _, plan, _ = jobs.spec_and_plan(connection, job_id)
            owner = jobs.get(connection, job_id).owner
        if attempt is None or attempt.state != AttemptState.INTENDED or job.desired != Desired.RUN:
            return
        try:
            fixed = with_fixed_data(spec, plan, self.settings.data_dir)
            request = build_request(job, attempt, validate(Document(fixed)), owner, self.settings, self.secrets)
        except Unreachable as error:
            _log.warning("the launch of %s waits: %s", attempt.name, error)  # a locked keyring, for example
            return
        except AinfinityError as error:
            self._refused(job, attempt, error)
            return
        # Here too, and not only in the call: trouble with the lease or the database is no refusal of the job.
        self.fence.must_hold()
        handles: list[str] = []

        def work() -> None:
            self.fence.must_still_hold()
            handles.append(backend.compute.launch(request))

        backend.call("launch", attempt.name, work, lambda error: self._launched(job, attempt, error, handles))

    def _launched(self, job: JobFold, attempt: AttemptFold, error: Exception | None, handles: list[str]) -> None:
        match error:
            case None:
                self.probe("launch:called")
                now = self.fence.store.clock.now()
                data = {"handle": handles[0]}
                self.recorder.append(
                    [Event(EventType.ATTEMPT_LAUNCHED, job.id, now, ENGINE.name, attempt.number, data)]
                )
                self.probe("launch:recorded")
            case ComputeUnreachable():
                _log.warning("no answer to the launch of %s: %s", attempt.name, error)
            case LeaseLost():
                raise error
            case AinfinityError():
                self._refused(job, attempt, error)
            case _:
                raise error

    def _refused(self, job: JobFold, attempt: AttemptFold, error: AinfinityError) -> None:
        """The backend says that it did not and will not start this: a new attempt would only be refused again."""
        now = self.fence.store.clock.now()
        data = {"code": error.code, "message": redact(str(error)), "reason": redact(str(error)), "outcome": "failed"}
        ended = Event(EventType.ATTEMPT_FAILED, job.id, now, ENGINE.name, attempt.number, data)
        with self.fence.write() as connection:
            current = events.get_attempt(connection, job.id, attempt.number)
            if current is None or current.state != AttemptState.INTENDED:
                return  # it was cancelled meanwhile, or found running after all: what is seen of it decides
            cancelled = jobs.fold_of(connection, job.id).desired == Desired.CANCEL
            kind = EventType.CANCELLED if cancelled else EventType.FAILED
            verdict = Event(kind, job.id, now, ENGINE.name, 0, {} if cancelled else data)
            events.append(connection, [ended, verdict], self.fence.store.places)

    def stop(self, backend: Backend, name: str) -> None:
        """Ask for the end of an attempt. Without an answer it is asked again on a later tick."""
        self.probe("cancel:stopping")
        self._ask(backend, "stop", name, lambda: backend.compute.stop(name), lambda: self.probe("cancel:called"))

    def extend(self, backend: Backend, job_id: str, attempt: AttemptFold, deadline: float | None) -> None:
        """Tell a running attempt its new deadline, and record that it knows. A later tick asks again without that."""

        def work() -> None:
            self.fence.must_still_hold()
            backend.compute.extend(attempt.name, deadline)

        def done(error: Exception | None) -> None:
            if isinstance(error, ComputeUnreachable):
                _log.warning("no answer to the extension of %s: %s", attempt.name, error)
                return
            data: dict[str, Any] = {"deadline": deadline}
            if isinstance(error, Refused):  # recorded too, or it would be asked for ever
                # One that was to come sooner is kept from here all the same.
                known = [value for value in (attempt.deadline, deadline) if value is not None]
                data = {"deadline": min(known, default=None), "refused": redact(str(error))}
            elif error is not None:
                raise error
            now = self.fence.store.clock.now()
            self.recorder.append([Event(EventType.ATTEMPT_EXTENDED, job_id, now, ENGINE.name, attempt.number, data)])

        self.fence.must_hold()
        backend.call("extend", attempt.name, work, done)

    def release(self, backend: Backend, name: str) -> None:
        """Have the backend forget an attempt that is over."""
        self.probe("cancel:confirmed")
        self._ask(backend, "release", name, lambda: backend.compute.release(name), lambda: None)

    def _ask(self, backend: Backend, what: str, name: str, call: Callable[[], None], then: Callable[[], None]) -> None:
        self.fence.must_hold()

        def work() -> None:
            self.fence.must_still_hold()
            call()

        def done(error: Exception | None) -> None:
            if isinstance(error, (ComputeUnreachable, Refused)):
                _log.warning("the %s of %s came to nothing: %s", what, name, error)
            elif error is not None:
                raise error
            else:
                then()

        backend.call(what, name, work, done)

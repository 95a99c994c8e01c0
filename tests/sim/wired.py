"""The reconciler with rules, signs and extensions in place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ainfinity.domain.decide import Call, Rules, Seen
from ainfinity.engine.reconciler import Reconciler
from ainfinity.engine.rules import RuleBook
from ainfinity.engine.signs import Signs
from ainfinity.engine.view import LiveJob


class Wired(Reconciler):
    def __init__(self, *arguments: Any, **given: Any) -> None:
        super().__init__(*arguments, **given)
        self.rules = RuleBook(self.settings)
        self.signs = Signs()

    def _rules_for(self, job: LiveJob, lag: float) -> Rules:
        return self.rules.rules_for(job.spec, job.job, lag)

    def _seen(self, backend: Any, sighting: Any, job: LiveJob, attempt: Any, undrained: Any, now: float) -> Seen:
        seen = super()._seen(backend, sighting, job, attempt, undrained, now)
        found = seen.observation
        if found is None:
            return seen
        last, since = self.signs.look(attempt.name, (job.log_offset, found.phase, found.recoveries), now)
        return replace(seen, last_sign=last, watched_since=since)

    def _lose_contact(self, *arguments: Any) -> None:
        self.signs.lose()
        super()._lose_contact(*arguments)

    def _call(self, backend: Any, sighting: Any, recorded: Any) -> None:
        super()._call(backend, sighting, recorded)
        for job, decision in recorded:
            if decision.call == Call.EXTEND and job.attempt is not None:
                self.caller.extend(backend, job.job.id, job.attempt, decision.deadline)

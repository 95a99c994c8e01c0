"""Writing what trainers said into the store: events, metrics, progress and how far was read, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy.engine import Connection

from ainfinity.compute.port import Compute, Lines
from ainfinity.domain.observation import Observation, Phase
from ainfinity.engine.fence import Fence
from ainfinity.engine.ingest import Intake, take_in
from ainfinity.engine.view import LiveJob
from ainfinity.schema.states import AttemptState
from ainfinity.store import events, jobs, metrics, progress
from ainfinity.store.events import ATTEMPT

#: Rounds of reading in one tick for attempts that ended with much unread output; the rest waits for the next tick.
_ROUNDS = 8


class IntakeWriter:
    """Reads the output of all live attempts and stores what it says."""

    def __init__(self, fence: Fence, probe: Callable[[str], None]) -> None:
        self.fence = fence
        self.probe = probe
        self.wrote = False

    def take_all(self, compute: Compute, mine: list[LiveJob], found: Mapping[str, Observation]) -> set[str]:
        """Take in new output and return the names of ended attempts of which some is still unread.

        An attempt that is not adopted yet is not read: its lines belong after its launch in the order of events.
        """
        self.wrote = False
        by_name = {job.live_attempt.name: job for job in mine if job.live_attempt is not None}
        ended = {name for name in by_name if name in found and found[name].phase in (Phase.EXITED, Phase.VANISHED)}
        early = {name for name, job in by_name.items() if job.attempt and job.attempt.state == AttemptState.INTENDED}
        wanted = {name: job.log_offset for name, job in by_name.items() if name in found and name not in early}
        for _ in range(_ROUNDS):
            if not wanted:
                break
            new = compute.read_lines(wanted)
            fresh = {name: lines for name, lines in new.items() if lines.offset > wanted[name]}
            if fresh:
                self.probe("ingest:read")
                self._write([(by_name[name], lines) for name, lines in fresh.items()])
                self.probe("ingest:recorded")
            wanted = {name: fresh[name].offset for name in sorted(ended & fresh.keys())}
        return set(wanted) | (early & ended)

    def _write(self, taken: list[tuple[LiveJob, Lines]]) -> None:
        intakes = [
            (job, take_in(job.job.id, job.live_attempt.number, job.line_seq, lines.lines), lines.offset)
            for job, lines in taken
            if job.live_attempt is not None
        ]
        with self.fence.write() as connection:
            events.append(connection, [event for _, intake, _ in intakes for event in intake.events])
            for _, intake, offset in intakes:
                self._store(connection, intake, offset)
        for job, intake, offset in intakes:
            job.log_offset, job.line_seq = offset, intake.line_seq
            self.wrote = self.wrote or bool(intake.events)

    def _store(self, connection: Connection, intake: Intake, offset: int) -> None:
        if intake.points:
            metrics.append_chunk(connection, intake.job_id, intake.attempt, intake.points)
        if intake.progress is not None:
            progress.put(connection, intake.job_id, intake.progress)
        jobs.add_artifacts(connection, intake.artifacts)
        place = (ATTEMPT.c.job_id == intake.job_id) & (ATTEMPT.c.number == intake.attempt)
        values = {"log_offset": offset, "line_seq": intake.line_seq}
        connection.execute(ATTEMPT.update().where(place).values(values))

"""Random histories of verbs and of what the engine records: the rows stay the fold of the events."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from ainfinity.core.exceptions import AinfinityError
from ainfinity.schema.event import TERMINAL_EVENTS, EventType
from ainfinity.schema.states import JobState
from ainfinity.services.deliveries import DeliveryService
from ainfinity.store import events
from ainfinity.store.events import DELIVERY, EVENT, JOB
from tests.services.workplace import ADMIN, APPROVER, LAUNCHER, VIEWER, Workplace

_ENGINE = [kind for kind in EventType if kind.startswith(("attempt.", "contact.", "trainer."))]
_ENDS = (EventType.SUCCEEDED, EventType.FAILED, EventType.CANCELLED)


class Player:
    """Does something at random, as people and an engine would, sensible or not."""

    def __init__(self, work: Workplace, seed: int) -> None:
        self.work = work
        self.random = random.Random(seed)
        self.jobs: list[str] = []
        self.done: Counter[str] = Counter()

    def play(self, moves: int) -> None:
        for _ in range(moves):
            self.work.clock.move(self.random.choice((0.0, 0.5, 30.0)))
            verb = self.random.choice((self.launch, self.say, self.say, self.record, self.record, self.end))
            try:
                verb()
            except AinfinityError as error:
                self.done[error.code] += 1
            else:
                self.done[verb.__name__] += 1

    def launch(self) -> None:
        approval = self.random.choice(("auto", "required"))
        notify = self.random.choice(("finish", "all", "none"))
        name = f"job-{self.random.randrange(4)}"
        spec = self.work.spec(name, policy__approval=approval, policy__notify=notify)
        actor = self.random.choice((ADMIN, LAUNCHER, VIEWER))
        self.jobs.append(self.work.service.launch_job(spec, f"key-{self.random.randrange(60)}", actor).id)

    def say(self) -> None:
        service, job = self.work.service, self.pick()
        actor = self.random.choice((ADMIN, APPROVER, LAUNCHER))
        verb = self.random.choice(("stop", "retry", "approve", "reject", "delete"))
        match verb:
            case "stop":
                service.stop_job(job, actor)
            case "retry":
                service.retry_job(job, actor)
            case "approve":
                service.approve_job(job, actor)
            case "reject":
                service.reject_job(job, actor, "no")
            case _:
                service.delete_job(job, actor)
        self.done[verb] += 1

    def record(self) -> None:
        """Something of the engine, whether it fits or not: a fold is total."""
        job = self.work.row(self.pick())
        kind = self.random.choice(_ENGINE)
        number = job.attempt + (kind == EventType.ATTEMPT_INTENDED and job.state == JobState.QUEUED)
        self.work.record(job.id, (kind, {"step": self.random.randrange(9), "code": "x"}), attempt=number or 1)

    def end(self) -> None:
        job = self.work.row(self.pick())
        if job.state in (JobState.LAUNCHING, JobState.RUNNING, JobState.RECOVERING, JobState.CANCELLING):
            cancelled = job.state == JobState.CANCELLING
            self.work.record(job.id, EventType.CANCELLED if cancelled else self.random.choice(_ENDS[:2]))

    def pick(self) -> str:
        return self.random.choice(self.jobs) if self.jobs else "none"


@pytest.mark.parametrize("seed", range(8))
def test_rows_are_the_fold_of_their_events(work: Workplace, seed: int) -> None:
    player = Player(work, seed)
    for _ in range(6):
        player.play(25)
        work.check_fold()
        check_seq(work)
    assert player.done.keys() > {"launch", "stop", "record", "wrong_state"}, player.done


def check_seq(work: Workplace) -> None:
    with work.store.read() as connection:
        seqs = [row.seq for row in connection.execute(EVENT.select().order_by(EVENT.c.seq))]
        rows = [row.seq for row in connection.execute(JOB.select())]
    assert len(seqs) == len(set(seqs))
    assert set(rows) <= set(seqs)


def test_control_a_row_that_was_changed_by_hand_is_noticed(work: Workplace) -> None:
    job = work.in_state(JobState.RUNNING)
    work.check_fold()
    with work.store.write() as connection:
        connection.execute(JOB.update().where(JOB.c.id == job).values(state="queued"))
    with pytest.raises(AssertionError):
        work.check_fold()


def owed(work: Workplace) -> list[tuple[str, str, str]]:
    """(job, type of event, place) of every delivery there is."""
    with work.store.read() as connection:
        rows = connection.execute(DELIVERY.select()).all()
        return sorted((row.job_id, str(events.get(connection, row.event_seq).type), row.place) for row in rows)


@pytest.mark.parametrize("notify", ["finish", "all", "none"])
@pytest.mark.parametrize("end", [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.REJECTED])
def test_an_end_owes_one_delivery_a_place(work: Workplace, end: JobState, notify: str) -> None:
    work.store.places = ("file", "command")
    job = work.in_state(end, policy__notify=notify)
    found = Counter((kind, place) for _, kind, place in owed(work) if kind in TERMINAL_EVENTS)
    expected = {} if notify == "none" else {(f"job.{end}", "file"): 1, (f"job.{end}", "command"): 1}
    assert found == expected
    with pytest.raises(AinfinityError):
        work.service.stop_job(job, ADMIN)
    assert Counter((kind, place) for _, kind, place in owed(work) if kind in TERMINAL_EVENTS) == expected


def test_what_else_is_told(work: Workplace) -> None:
    work.in_state(JobState.RECOVERING, "all", policy__notify="all")
    work.in_state(JobState.RECOVERING, "finish")
    asked = work.launch("asks", policy__approval="required").id
    work.launch("quiet", policy__approval="required", policy__notify="none")
    found = [(work.row(job).name, kind) for job, kind, _ in owed(work)]
    expected = [("all", "attempt.running"), ("all", "attempt.recovering"), ("asks", "job.approval_requested")]
    assert sorted(found) == sorted(expected)
    work.service.stop_job(asked, ADMIN)
    assert ("asks", "job.cancelled") in [(work.row(job).name, kind) for job, kind, _ in owed(work)]


def test_a_retried_job_that_ends_again_is_told_again(work: Workplace) -> None:
    job = work.in_state(JobState.FAILED)
    work.service.retry_job(job, ADMIN)
    work.service.stop_job(job, ADMIN)
    assert [kind for _, kind, _ in owed(work)] == ["job.cancelled", "job.failed"]


def test_notices_are_claimed_once_settled_once_and_owed_again_after_a_failure(work: Workplace) -> None:
    work.store.places = ("chat",)
    work.in_state(JobState.SUCCEEDED)
    service = DeliveryService(work.store)
    assert service.claim("elsewhere") == []
    (notice,) = service.claim("chat")
    assert (notice.place, notice.event.type, notice.tries) == ("chat", "job.succeeded", 1)
    assert service.claim("chat") == []
    service.settle(notice.id, "failed", "no network")
    assert service.claim("chat") == []
    work.clock.move(10)
    (again,) = service.claim("chat")
    assert (again.id, again.tries) == (notice.id, 2)
    work.clock.move(service.CLAIM + 1)  # its owner died
    (third,) = service.claim("chat")
    service.settle(third.id, "sent")
    service.settle(third.id, "failed")  # a late answer changes nothing
    work.clock.move(10_000)
    assert service.claim("chat") == []


def test_deleting_never_gives_a_seq_out_again(work: Workplace) -> None:
    seen: set[int] = set()
    top = 0
    for number in range(5):
        job = work.in_state(JobState.FAILED, f"job-{number}")
        mine = {event.seq for event in work.events(job)}
        assert min(mine) > top
        assert not mine & seen
        seen |= mine
        top = max(mine)
        work.service.delete_job(job, ADMIN)
        with work.store.read() as connection:
            assert events.last_seq(connection) >= top
    assert work.service.list_jobs() == []


def test_deleting_forgets_the_job_and_keeps_its_files(work: Workplace) -> None:
    job = work.in_state(JobState.SUCCEEDED)
    kept = work.settings.jobs_dir / job / "output" / "model"
    kept.mkdir(parents=True)
    work.service.delete_job("first", ADMIN)
    assert kept.is_dir()
    assert work.service.list_jobs() == []
    work.launch("first")
    work.check_fold()

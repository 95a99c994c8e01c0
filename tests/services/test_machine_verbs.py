"""A later deadline, a longer stay and an end at once, in every state; what jobs cost, and what their time gave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ainfinity.core.exceptions import AinfinityError, NotAllowed, UsageError
from ainfinity.schema.event import EventType
from ainfinity.schema.states import JobState
from ainfinity.schema.views import JobRow
from ainfinity.store.events import get_attempt
from ainfinity.store.jobs import AUDIT
from ainfinity.store.metrics import append_chunk
from tests.services.workplace import ADMIN, VIEWER, Workplace, states

E, S = EventType, JobState
REMOTE = {"resources__infra": "slurm/lab"}
BEGUN = (E.ATTEMPT_INTENDED, {"backend": "skypilot", "deadline": 1_760_100_000.0})
KEPT = (E.ATTEMPT_KEPT, {"until": 1_760_003_600.0, "reason": "policy.keep_on_failure", "outcome": "failed"})

VERBS: dict[str, Callable[[Workplace, str], JobRow]] = {
    "extend": lambda work, job: work.service.extend_job(job, 7200.0, ADMIN),
    "keep": lambda work, job: work.service.keep_job(job, 7200.0, ADMIN),
    "teardown": lambda work, job: work.service.teardown_job(job, ADMIN),
}
#: The states in which each is done, and the state after it; anywhere else it is refused.
DONE = {
    "extend": {S.LAUNCHING: "launching", S.RUNNING: "running", S.RECOVERING: "recovering"},
    "keep": {S.LAUNCHING: "launching", S.RUNNING: "running", S.RECOVERING: "recovering"},
    "teardown": dict.fromkeys((S.LAUNCHING, S.RUNNING, S.RECOVERING), "cancelling"),
}


@pytest.fixture
def remote(work: Workplace) -> Workplace:
    work.service.backends = ("local", "skypilot")
    return work


def running(work: Workplace, *more: EventType | tuple[EventType, dict], **changes: object) -> str:
    job = work.launch("first", **REMOTE | changes).id
    work.record(job, BEGUN, E.ATTEMPT_LAUNCHED, E.ATTEMPT_RUNNING, *more)
    return job


def attempt(work: Workplace, job: str):
    with work.store.read() as connection:
        return get_attempt(connection, job, 1)


@pytest.mark.parametrize("state", states())
@pytest.mark.parametrize("verb", VERBS)
def test_verbs_in_every_state(remote: Workplace, verb: str, state: JobState) -> None:
    job = remote.in_state(state, **REMOTE)
    if verb == "extend" and state in DONE[verb]:
        remote.record(job, (E.ATTEMPT_EXTENDED, {"deadline": 1_760_100_000.0}))
    before, history = remote.row(job), remote.events()
    if state in DONE[verb]:
        assert VERBS[verb](remote, job).state == DONE[verb][state]
        with remote.store.read() as connection:
            (audit,) = connection.execute(AUDIT.select().where(AUDIT.c.action != "launch")).all()
        assert (audit.actor, audit.subject) == (ADMIN.name, job)
    else:
        with pytest.raises(AinfinityError) as caught:
            VERBS[verb](remote, job)
        assert (caught.value.code, caught.value.exit_code) == ("wrong_state", 3)
        assert (replace(remote.row(job), cost=before.cost), remote.events()) == (before, history)
    remote.check_fold()


@pytest.mark.parametrize("verb", VERBS)
def test_only_a_launcher_may(remote: Workplace, verb: str) -> None:
    job = running(remote)
    call = getattr(remote.service, f"{verb}_job")
    with pytest.raises(NotAllowed):
        call(job, *(() if verb == "teardown" else (60.0,)), VIEWER)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf"), 1e12])
def test_a_time_that_is_none_is_refused(remote: Workplace, seconds: float) -> None:
    job = running(remote)
    for call in (remote.service.extend_job, remote.service.keep_job):
        with pytest.raises(UsageError):
            call(job, seconds, ADMIN)


def test_an_extension_counts_from_the_last_one_and_is_told_later(remote: Workplace) -> None:
    job = running(remote)
    remote.service.extend_job(job, 100.0, ADMIN)
    remote.service.extend_job(job, 50.0, ADMIN)
    found = attempt(remote, job)
    assert (found.deadline, found.extend_to) == (1_760_100_000.0, 1_760_100_150.0)
    # The first of them is told while the second is on its way.
    remote.record(job, (E.ATTEMPT_EXTENDED, {"deadline": 1_760_100_100.0}))
    assert attempt(remote, job).extend_to == 1_760_100_150.0
    remote.record(job, (E.ATTEMPT_EXTENDED, {"deadline": 1_760_100_150.0}))
    found = attempt(remote, job)
    assert (found.deadline, found.extend_to) == (1_760_100_150.0, None)
    remote.check_fold()


def test_an_extension_ends_where_the_budget_does(remote: Workplace) -> None:
    given = (E.ATTEMPT_GIVEN, {"price_per_hour": 3.6, "given": "1x H100:8 aws"})
    job = running(remote, given, policy__max_cost=200.0)
    remote.clock.move(3600)
    remote.service.extend_job(job, 86400.0 * 30, ADMIN)
    # $200 at $3.60 an hour are 200,000 seconds, from when the machine was there.
    assert attempt(remote, job).extend_to == pytest.approx(1_760_200_000.0)


def test_a_budget_that_is_spent_leaves_nothing_to_extend(remote: Workplace) -> None:
    job = running(remote, (E.ATTEMPT_GIVEN, {"price_per_hour": 3600.0}), policy__max_cost=10.0)
    with pytest.raises(AinfinityError, match="max_cost") as caught:
        remote.service.extend_job(job, 60.0, ADMIN)
    assert (caught.value.code, caught.value.field) == ("refused", "policy.max_cost")


def test_what_has_no_deadline_cannot_be_extended(work: Workplace) -> None:
    job = work.in_state(S.RUNNING)
    with pytest.raises(AinfinityError, match="no deadline"):
        work.service.extend_job(job, 60.0, ADMIN)
    with pytest.raises(AinfinityError, match="this machine"):
        work.service.keep_job(job, 60.0, ADMIN)


def test_a_keeping_never_gets_shorter(remote: Workplace) -> None:
    job = running(remote, KEPT)
    assert remote.row(job).kept_until == 1_760_003_600.0
    remote.service.keep_job(job, 60.0, ADMIN)
    assert remote.row(job).kept_until == 1_760_003_600.0
    assert remote.service.keep_job(job, 7200.0, ADMIN).kept_until == 1_760_007_200.0
    with pytest.raises(AinfinityError, match="is kept"):
        remote.service.extend_job(job, 60.0, ADMIN)


def test_a_kept_machine_is_torn_down_without_a_cancel(remote: Workplace) -> None:
    job = running(remote, KEPT)
    row = remote.service.teardown_job(job, ADMIN)
    assert (row.state, row.desired, row.kept_until) == ("running", "run", None)
    assert attempt(remote, job).keep_until == 0.0
    remote.check_fold()


def adopted(work: Workplace) -> str:
    job = work.launch("theirs", **REMOTE, policy__approval="required").id
    begun = (E.ATTEMPT_INTENDED, {"name": "theirs", "backend": "skypilot"})
    work.record(job, (E.ADOPTED, {"origin": "cluster:theirs"}), begun, E.ATTEMPT_ADOPTED, E.ATTEMPT_RUNNING)
    assert (work.row(job).origin, work.row(job).state) == ("cluster:theirs", "running")
    return job


@pytest.mark.parametrize("verb", ["stop", "keep", "teardown", "extend", "retry"])
def test_an_adopted_job_is_read_only_until_it_is_claimed(remote: Workplace, verb: str) -> None:
    job = adopted(remote)
    if verb == "retry":
        remote.record(job, E.ATTEMPT_FAILED, E.FAILED)
    call = getattr(remote.service, f"{verb}_job")
    arguments = (60.0, ADMIN) if verb in ("keep", "extend") else (ADMIN,)
    with pytest.raises(AinfinityError, match="plain SkyPilot"):
        call(job, *arguments)
    if verb in ("stop", "keep", "teardown"):
        remote.record(job, E.CLAIMED)
        assert call(job, *arguments).claimed


def test_cost_so_far_and_final_per_attempt_and_job(remote: Workplace) -> None:
    job = remote.launch("first", **REMOTE).id
    remote.record(job, BEGUN, E.ATTEMPT_LAUNCHED)
    remote.clock.move(100)
    assert remote.service.get_job_status(job).job.cost == 0.0, "nothing was given yet"
    remote.record(job, E.ATTEMPT_SETTING_UP)
    remote.clock.move(1800)
    assert remote.service.get_job_status(job).job.cost is None, "unknown is not nothing"
    remote.record(job, (E.ATTEMPT_GIVEN, {"price_per_hour": 2.0, "given": "1x A100"}), E.ATTEMPT_RUNNING)
    remote.clock.move(1800)
    detail = remote.service.get_job_status(job)
    assert (detail.job.cost, detail.job.price_per_hour) == (2.0, 2.0)
    assert (detail.attempts[0].cost, detail.attempts[0].given) == (2.0, "1x A100")
    moved = {"price_per_hour": 8.0, "given": "1x H100", "recoveries": 1, "moved": True}
    remote.record(job, E.ATTEMPT_RECOVERING, E.ATTEMPT_RUNNING, (E.ATTEMPT_GIVEN, moved))
    remote.clock.move(900)
    remote.record(job, E.ATTEMPT_LOST, (E.QUEUED, {"cause": "loss"}))
    remote.clock.move(7200)
    again = {"backend": "skypilot", "name": f"ain-{job}-a2"}
    remote.record(job, (E.ATTEMPT_INTENDED, again), E.ATTEMPT_RUNNING, attempt=2)
    remote.record(job, (E.ATTEMPT_GIVEN, {"price_per_hour": 1.0}), attempt=2)
    remote.clock.move(3600)
    detail = remote.service.get_job_status(job)
    assert [one.cost for one in detail.attempts] == [4.0, 1.0]
    assert (detail.job.cost, detail.attempts[0].recoveries) == (5.0, 1)
    assert remote.service.list_jobs()[0].cost == 5.0
    remote.check_fold()


def test_an_unknown_price_stays_unknown_to_the_end(remote: Workplace) -> None:
    job = running(remote)
    remote.clock.move(60)
    remote.record(job, E.ATTEMPT_SUCCEEDED, E.SUCCEEDED)
    detail = remote.service.get_job_status(job)
    assert (detail.job.cost, detail.job.price_per_hour, detail.attempts[0].cost) == (None, None, None)


def test_this_machine_costs_nothing(work: Workplace) -> None:
    job = work.in_state(S.RUNNING)
    work.clock.move(3600)
    assert work.service.get_job_status(job).job.cost == 0.0


def test_goodput_counts_a_step_once(remote: Workplace) -> None:
    job = running(remote)
    assert remote.service.get_job_status(job).goodput is None
    with remote.store.write() as connection:
        append_chunk(connection, job, 1, [(n, n, 1.0, {"loss": 1.0, "step_seconds": 10.0}) for n in range(1, 5)])
    remote.clock.move(60)
    remote.record(job, E.ATTEMPT_LOST, (E.QUEUED, {"cause": "loss"}))
    remote.clock.move(500)
    again = {"backend": "skypilot", "name": f"ain-{job}-a2"}
    remote.record(job, (E.ATTEMPT_INTENDED, again), E.ATTEMPT_RUNNING, attempt=2)
    with remote.store.write() as connection:
        append_chunk(connection, job, 2, [(n, n, 1.0, {"loss": 1.0, "step_seconds": 10.0}) for n in range(3, 6)])
    remote.clock.move(40)
    # Five steps of 10 s count, in 60 s and 40 s that were paid for; the wait between them cost nothing.
    assert remote.service.get_job_status(job).goodput == pytest.approx(0.5)


def test_a_plan_elsewhere_says_when_it_ends_what_is_unknown_and_what_is_kept(remote: Workplace) -> None:
    def findings(**changes: object) -> str:
        return "\n".join(remote.service.plan(remote.spec(**REMOTE | changes)).findings)

    plain = findings()
    assert "ends itself 24 h after its launch, by the setting default_deadline" in plain
    assert "price is unknown" in plain
    assert "training starts anew" in plain
    assert "1.5 h after its launch, by policy.max_duration" in findings(policy__max_duration="90m")
    assert "policy.max_cost is watched only once" in findings(policy__max_cost=5.0)
    assert "starts anew" not in findings(resources__storage="s3://bucket/path")
    local = "\n".join(remote.service.plan(remote.spec()).findings)
    assert "ends itself" not in local
    assert "price" not in local


def test_a_checkpoint_of_a_machine_that_is_gone_is_no_surprise(remote: Workplace) -> None:
    job = running(remote, (E.TRAINER_CHECKPOINT, {"step": 4, "path": "/there/step-4"}))
    remote.record(job, E.ATTEMPT_FAILED, E.FAILED)
    with pytest.raises(AinfinityError, match="machine that is gone") as caught:
        remote.service.retry_job(job, ADMIN, from_step=4)
    assert caught.value.code == "not_found"
    assert remote.service.retry_job(job, ADMIN).state == "queued"

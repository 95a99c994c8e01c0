"""Launching: one job a key, one live job a name, and approvals that bind to a plan."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ainfinity.core.exceptions import (
    AinfinityError,
    ApprovalNeeded,
    DataInvalid,
    KeyReused,
    NameTaken,
    NotAllowed,
    NotFound,
    NotSupported,
    PlanChanged,
    WrongState,
)
from ainfinity.schema.actor import Actor, Role
from ainfinity.schema.event import EventType
from ainfinity.schema.states import JobState
from ainfinity.services.training_service import TrainingService
from ainfinity.store import jobs
from ainfinity.store.jobs import AUDIT, PLAN
from ainfinity.store.store import open_store
from tests.services.workplace import ADMIN, APPROVER, LAUNCHER, VIEWER, Workplace, write_chats


def test_launch_records_what_was_asked_and_queues_it(work: Workplace) -> None:
    row = work.launch("first", tags=("a", "b"), note="why", policy__priority=3)
    assert (row.name, row.state, row.owner, row.tags, row.note, row.priority) == (
        "first", "queued", "local:ann", ("a", "b"), "why", 3
    )  # fmt: skip
    types = [event.type for event in work.events(row.id)]
    assert types == [EventType.SUBMITTED, EventType.PLANNED, EventType.APPROVED, EventType.QUEUED]
    detail = work.service.get_job_status(row.id)
    assert detail.spec == work.spec("first", tags=("a", "b"), note="why", policy__priority=3).as_json()
    assert detail.plan is not None
    assert detail.plan["data_rows"] == 4
    assert detail.provenance["data_sha256"] == detail.plan["data_sha256"]
    assert row.seq == work.events()[-1].seq


def test_the_same_key_is_one_job(work: Workplace) -> None:
    first = work.service.launch_job(work.spec(), "key", ADMIN)
    count = len(work.events())
    again = work.service.launch_job(work.spec(), "key", ADMIN)
    assert again == first
    assert len(work.events()) == count


def test_the_same_key_is_the_same_job_even_when_its_data_is_gone(work: Workplace) -> None:
    first = work.service.launch_job(work.spec(), "key", ADMIN)
    work.data.unlink()
    assert work.service.launch_job(work.spec(), "key", ADMIN).id == first.id


@pytest.mark.parametrize("changes", [{"name": "second"}, {"note": "x"}, {"recipe__lr": 0.5}, {"policy__retries": 1}])
def test_a_key_is_never_reused_for_another_job(work: Workplace, changes: dict[str, Any]) -> None:
    work.service.launch_job(work.spec(), "key", ADMIN)
    with pytest.raises(KeyReused):
        work.service.launch_job(work.spec(**changes), "key", ADMIN)
    with pytest.raises(KeyReused):
        work.service.launch_job(work.spec(), "key", Actor("local:bob"))
    assert len(work.service.list_jobs()) == 1


def race(work: Workplace, name: str, keys: Sequence[str]) -> list[str]:
    """Launch at once from threads with a store each, as processes have; return ids and error codes."""
    barrier = threading.Barrier(len(keys))

    def launch(key: str) -> str:
        store = open_store(work.settings, work.clock)
        try:
            service = TrainingService(store)
            barrier.wait(30)
            return service.launch_job(work.spec(name), key, ADMIN).id
        except AinfinityError as error:
            return error.code
        finally:
            store.close()

    with ThreadPoolExecutor(len(keys)) as pool:
        return list(pool.map(launch, keys))


SIX_KEYS = [f"key-{number}" for number in range(6)]


def test_racing_launches_with_one_key_are_one_job(work: Workplace) -> None:
    for turn in range(5):
        found = race(work, f"job-{turn}", [f"key-{turn}"] * 6)
        assert len(set(found)) == 1
    assert len(work.service.list_jobs()) == 5
    work.check_fold()


def test_racing_launches_of_one_name_leave_one_live(work: Workplace) -> None:
    found = Counter(race(work, "same", SIX_KEYS))
    assert found.pop("name_taken") == 5
    assert list(found.values()) == [1]


def test_control_without_the_second_look_a_race_makes_two_jobs(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race above is real: whoever looks for the name outside the transaction gets several live jobs."""
    monkeypatch.setattr(jobs, "live_id_of_name", lambda connection, name: None)
    found = race(work, "same", SIX_KEYS)
    assert len(set(found)) == 6


def test_a_live_name_is_taken_and_a_finished_one_is_free(work: Workplace) -> None:
    first = work.launch("same")
    with pytest.raises(NameTaken) as caught:
        work.launch("same")
    assert caught.value.field == "name"
    work.service.stop_job(first.id, ADMIN)
    work.clock.move(1)
    second = work.launch("same")
    assert second.id != first.id
    # The newest of a name is meant by it, and the older one cannot come to life beside it.
    assert work.service.get_job_status("same").job.id == second.id
    with pytest.raises(NameTaken):
        work.service.retry_job(first.id, ADMIN)


def test_a_plan_shown_before_binds_the_launch(work: Workplace) -> None:
    shown = work.service.plan(work.spec())
    write_chats(work.data, rows=9)
    with pytest.raises(PlanChanged):
        work.service.launch_job(work.spec(), "key", ADMIN, plan_hash=shown.plan_hash)
    assert work.service.list_jobs() == []
    again = work.service.plan(work.spec())
    assert work.service.launch_job(work.spec(), "key", ADMIN, plan_hash=again.plan_hash).state == "queued"


def test_planning_stores_nothing(work: Workplace) -> None:
    view = work.service.plan(work.spec(policy__approval="required"))
    assert view.needs_approval
    assert not work.events()
    assert work.service.list_jobs() == []


def test_approval_is_of_the_plan_that_stands(work: Workplace) -> None:
    row = work.launch(policy__approval="required")
    assert row.state == JobState.AWAITING_APPROVAL
    standing = work.service.get_job_status(row.id).plan_hash
    with pytest.raises(PlanChanged):
        work.service.approve_job(row.id, ADMIN, "0123456789abcdef")
    assert work.row(row.id).state == JobState.AWAITING_APPROVAL
    assert work.service.approve_job(row.id, APPROVER, standing).state == JobState.QUEUED
    approved = [event for event in work.events(row.id) if event.type == EventType.APPROVED]
    assert [(event.actor, event.data) for event in approved] == [("local:abe", {"plan_hash": standing})]


@pytest.mark.parametrize("named", [True, False], ids=["by hash", "as it stands"])
def test_data_that_changed_needs_a_new_look(work: Workplace, named: bool) -> None:
    row = work.launch(policy__approval="required")
    old = work.service.get_job_status(row.id).plan_hash
    write_chats(work.data, rows=7)
    with pytest.raises(PlanChanged):
        work.service.approve_job(row.id, ADMIN, old if named else "")
    detail = work.service.get_job_status(row.id)
    assert detail.job.state == JobState.AWAITING_APPROVAL
    assert detail.plan_hash != old
    assert detail.plan is not None
    assert detail.plan["data_rows"] == 7
    with pytest.raises(PlanChanged):
        work.service.approve_job(row.id, ADMIN, old)
    assert work.service.approve_job(row.id, ADMIN, detail.plan_hash).state == JobState.QUEUED
    with work.store.read() as connection:
        assert {row.plan_hash for row in connection.execute(PLAN.select())} == {old, detail.plan_hash}
    work.check_fold()


def test_held_out_data_that_changed_needs_a_new_look_too(work: Workplace) -> None:
    held_out = write_chats(work.root / "eval.jsonl")
    row = work.launch(policy__approval="required", recipe__eval_data=str(held_out))
    write_chats(held_out, rows=2)
    with pytest.raises(PlanChanged):
        work.service.approve_job(row.id, ADMIN)


def test_data_that_vanished_cannot_be_approved(work: Workplace) -> None:
    row = work.launch(policy__approval="required")
    work.data.unlink()
    with pytest.raises(DataInvalid):
        work.service.approve_job(row.id, ADMIN)
    assert work.row(row.id).state == JobState.AWAITING_APPROVAL


def test_a_cancelled_wish_cannot_be_approved_by_a_retry(work: Workplace) -> None:
    row = work.launch(policy__approval="required", actor=LAUNCHER)
    work.service.stop_job(row.id, LAUNCHER)
    with pytest.raises(ApprovalNeeded):
        work.service.retry_job(row.id, LAUNCHER)
    assert work.row(row.id).state == JobState.CANCELLED


def test_an_approved_job_may_be_retried(work: Workplace) -> None:
    row = work.launch(policy__approval="required")
    work.service.approve_job(row.id, ADMIN)
    work.service.stop_job(row.id, ADMIN)
    assert work.service.retry_job(row.id, LAUNCHER).state == JobState.QUEUED


def test_of_two_approvals_at_once_one_holds(work: Workplace) -> None:
    row = work.launch(policy__approval="required")
    barrier = threading.Barrier(4)

    def approve(_: int) -> str:
        barrier.wait(30)
        try:
            return work.service.approve_job(row.id, ADMIN).state
        except WrongState as error:
            return error.code

    with ThreadPoolExecutor(4) as pool:
        found = Counter(pool.map(approve, range(4)))
    assert found == {"queued": 1, "wrong_state": 3}
    assert sum(event.type == EventType.QUEUED for event in work.events(row.id)) == 1


@pytest.mark.parametrize("meanwhile", ["cancelled", "replanned"])
def test_an_approval_that_was_overtaken_is_refused(
    work: Workplace, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """Between the look at the data and the approval someone else cancels the job, or replaces its plan."""
    from ainfinity.services import planning

    row = work.launch(policy__approval="required")
    real = planning.make_plan

    def slow(*arguments: Any) -> Any:
        plan = real(*arguments)
        monkeypatch.setattr(planning, "make_plan", real)
        if meanwhile == "cancelled":
            work.service.stop_job(row.id, ADMIN)
        else:
            write_chats(work.data, rows=8)
            with pytest.raises(PlanChanged):
                work.service.approve_job(row.id, ADMIN)
        return plan

    monkeypatch.setattr(planning, "make_plan", slow)
    with pytest.raises(WrongState if meanwhile == "cancelled" else PlanChanged):
        work.service.approve_job(row.id, ADMIN)
    assert work.row(row.id).state == (JobState.CANCELLED if meanwhile == "cancelled" else JobState.AWAITING_APPROVAL)


def test_a_plan_that_changed_is_not_recorded_for_a_job_that_is_over(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ainfinity.services import planning

    row = work.launch(policy__approval="required")
    old = work.service.get_job_status(row.id).plan_hash
    real = planning.make_plan

    def slow(*arguments: Any) -> Any:
        write_chats(work.data, rows=8)
        work.service.stop_job(row.id, ADMIN)
        return real(*arguments)

    monkeypatch.setattr(planning, "make_plan", slow)
    with pytest.raises(WrongState):
        work.service.approve_job(row.id, ADMIN)
    assert work.service.get_job_status(row.id).plan_hash == old


VERBS: dict[str, Any] = {
    "launch": lambda work, job, actor: work.launch("other", actor=actor),
    "stop": lambda work, job, actor: work.service.stop_job(job, actor),
    "retry": lambda work, job, actor: work.service.retry_job(job, actor),
    "approve": lambda work, job, actor: work.service.approve_job(job, actor),
    "reject": lambda work, job, actor: work.service.reject_job(job, actor, "no"),
    "delete": lambda work, job, actor: work.service.delete_job(job, actor),
}
NEEDS = {"launch": Role.LAUNCHER, "stop": Role.LAUNCHER, "retry": Role.LAUNCHER, "approve": Role.APPROVER,
         "reject": Role.APPROVER, "delete": Role.LAUNCHER}  # fmt: skip
BEFORE = {"retry": JobState.FAILED, "delete": JobState.FAILED}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("actor", [VIEWER, LAUNCHER, APPROVER, ADMIN], ids=lambda actor: actor.role.name)
def test_roles(work: Workplace, verb: str, actor: Actor) -> None:
    job = work.in_state(BEFORE.get(verb, JobState.AWAITING_APPROVAL))
    before = len(work.events())
    if actor.role >= NEEDS[verb]:
        VERBS[verb](work, job, actor)
        with work.store.read() as connection:
            last = connection.execute(AUDIT.select().order_by(AUDIT.c.id.desc())).first()
        assert last is not None
        assert last.actor == actor.name
        return
    with pytest.raises(NotAllowed) as caught:
        VERBS[verb](work, job, actor)
    assert NEEDS[verb].name.lower() in caught.value.hint
    assert len(work.events()) == before


def test_whatever_changes_a_job_is_audited(work: Workplace) -> None:
    job = work.launch(policy__approval="required").id
    work.service.approve_job(job, APPROVER)
    work.service.stop_job(job, LAUNCHER)
    work.service.retry_job(job, ADMIN)
    work.service.stop_job(job, ADMIN)
    work.service.delete_job(job, ADMIN)
    other = work.launch("other", policy__approval="required").id
    work.service.reject_job(other, APPROVER, "too dear")
    with work.store.read() as connection:
        rows = [(row.actor, row.action, row.subject) for row in connection.execute(AUDIT.select())]
        reason = connection.execute(AUDIT.select().where(AUDIT.c.action == "reject")).one().detail
    assert rows == [
        ("local:ann", "launch", job), ("local:abe", "approve", job), ("local:lou", "cancel", job),
        ("local:ann", "retry", job), ("local:ann", "cancel", job), ("local:ann", "delete", job),
        ("local:ann", "launch", other), ("local:abe", "reject", other),
    ]  # fmt: skip
    assert reason == {"reason": "too dear"}


def test_secrets_must_be_stored_before_a_launch(work: Workplace) -> None:
    stored = {"HF_TOKEN"}
    work.service.missing_secrets = lambda names: [name for name in names if name not in stored]
    with pytest.raises(NotFound) as caught:
        work.launch(secrets=("HF_TOKEN", "WANDB_KEY"))
    assert "WANDB_KEY" in caught.value.message
    assert "ainfinity secrets set WANDB_KEY" in caught.value.hint
    assert work.service.list_jobs() == []
    stored.add("WANDB_KEY")
    assert work.launch(secrets=("HF_TOKEN", "WANDB_KEY")).state == JobState.QUEUED


def test_an_infrastructure_that_is_not_here_is_refused(work: Workplace) -> None:
    with pytest.raises(NotSupported) as caught:
        work.launch(resources__infra="slurm/cluster")
    assert caught.value.field == "resources.infra"


def test_a_checkpoint_to_retry_from_must_exist(work: Workplace) -> None:
    job = work.in_state(JobState.FAILED)
    with pytest.raises(NotFound):
        work.service.retry_job(job, ADMIN, from_step=8)
    from ainfinity.schema.views import ArtifactRow

    with work.store.write() as connection:
        jobs.add_artifacts(connection, [ArtifactRow(job, 1, "checkpoint", "/nowhere/step-8", 0, "", 1.0, 8)])
    with pytest.raises(NotFound) as caught:
        work.service.retry_job(job, ADMIN, from_step=4)
    assert "8" in caught.value.hint
    assert work.service.retry_job(job, ADMIN, from_step=8).state == JobState.QUEUED


def test_the_name_of_the_earlier_system_is_kept() -> None:
    from ainfinity import services

    assert services.SkyPilotService is services.TrainingService is TrainingService

"""Every verb in every state: what it does there, or with which code it is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ainfinity.core.exceptions import AinfinityError
from ainfinity.schema.states import JOB_TERMINAL, JobState
from ainfinity.schema.views import JobQuery, JobRow
from ainfinity.services.artifacts import ArtifactService
from ainfinity.services.changes import ChangeService
from ainfinity.services.logs import LogService
from tests.services.workplace import ADMIN, Workplace, states

S = JobState

#: What each verb answers by state: the state that the job has then, or the code of the refusal. `*` is every other one.
TABLE: dict[str, dict[JobState | str, str]] = {
    "stop": {
        S.AWAITING_APPROVAL: "cancelled",
        S.QUEUED: "cancelled",
        S.LAUNCHING: "cancelling",
        S.RUNNING: "cancelling",
        S.RECOVERING: "cancelling",
        S.CANCELLING: "cancelling",
        "*": "wrong_state",
    },
    "retry": {S.FAILED: "queued", S.CANCELLED: "queued", "*": "wrong_state"},
    "approve": {S.AWAITING_APPROVAL: "queued", "*": "wrong_state"},
    "reject": {S.AWAITING_APPROVAL: "rejected", "*": "wrong_state"},
    "delete": {**dict.fromkeys(JOB_TERMINAL, "not_found"), "*": "wrong_state"},
    "launch the name again": {**dict.fromkeys(JOB_TERMINAL, "queued"), "*": "name_taken"},
}


def launch_again(work: Workplace, job: str) -> JobRow:
    work.clock.move(1)
    return work.launch("first")


DO: dict[str, Callable[[Workplace, str], object]] = {
    "stop": lambda work, job: work.service.stop_job(job, ADMIN),
    "retry": lambda work, job: work.service.retry_job(job, ADMIN),
    "approve": lambda work, job: work.service.approve_job(job, ADMIN),
    "reject": lambda work, job: work.service.reject_job(job, ADMIN, "no"),
    "delete": lambda work, job: work.service.delete_job(job, ADMIN),
    "launch the name again": launch_again,
}


@pytest.mark.parametrize("state", states())
@pytest.mark.parametrize("verb", TABLE)
def test_verbs(work: Workplace, verb: str, state: JobState) -> None:
    job = work.in_state(state)
    expected = TABLE[verb].get(state, TABLE[verb]["*"])
    before, events = work.row(job), work.events()
    if expected in ("wrong_state", "name_taken"):
        with pytest.raises(AinfinityError) as caught:
            DO[verb](work, job)
        assert (caught.value.code, caught.value.exit_code, caught.value.http_status) == (expected, 3, 409)
        assert str(state) in caught.value.message or expected == "name_taken"
        assert (work.row(job), work.events()) == (before, events)
    elif expected == "not_found":
        DO[verb](work, job)
        with pytest.raises(AinfinityError) as caught:
            work.service.get_job_status(job)
        assert caught.value.code == expected
    else:
        done = DO[verb](work, job)
        assert getattr(done, "state", "") == expected
    work.check_fold()


@pytest.mark.parametrize("state", states())
def test_the_key_of_a_job_finds_it_in_any_state(work: Workplace, state: JobState) -> None:
    needs_approval = state in (S.AWAITING_APPROVAL, S.REJECTED)
    changes = {"policy__approval": "required"} if needs_approval else {}
    job = work.in_state(state)
    found = work.service.launch_job(work.spec(**changes), f"key-first-{work.keys}", ADMIN)
    assert (found.id, found.state) == (job, state)


@pytest.mark.parametrize("state", states())
def test_reading_works_in_any_state(work: Workplace, state: JobState) -> None:
    job = work.in_state(state)
    attempts = 0 if state in (S.AWAITING_APPROVAL, S.QUEUED, S.REJECTED) else 1
    changes = ChangeService(work.store)
    logs = LogService(work.store, work.settings.attempts_dir)
    detail = work.service.get_job_status("first")
    assert (detail.job.id, detail.job.state, len(detail.attempts)) == (job, state, attempts)
    assert [row.id for row in work.service.list_jobs(JobQuery(states=(str(state),)))] == [job]
    assert changes.events(job) == work.events(job)
    assert changes.metrics(job) == []
    item = changes.since(0, 0)
    assert item.events == tuple(work.events())
    assert [row.state for row in item.jobs] == [state]
    chunk = logs.read(job)
    assert (chunk.attempt, list(chunk.lines), chunk.ended) == (attempts, [], attempts == 1 and state in JOB_TERMINAL)
    artifacts = ArtifactService(work.store, work.settings.attempts_dir)
    assert artifacts.list(job) == []
    for what in ("adapter", "model", "checkpoint", "checkpoint:4", "logs"):
        with pytest.raises(AinfinityError) as caught:
            artifacts.pull(job, what, str(work.root / "out"))
        assert caught.value.code == "not_found"
    assert not (work.root / "out").exists()


@pytest.mark.parametrize("verb", ["stop", "retry", "approve", "reject", "delete"])
def test_a_job_that_is_not_there(work: Workplace, verb: str) -> None:
    for missing in ("nothing", "", "%", "first' OR 1=1 --"):
        with pytest.raises(AinfinityError) as caught:
            DO[verb](work, missing)
        assert (caught.value.code, caught.value.exit_code) == ("not_found", 102)
        assert "ainfinity list" in caught.value.hint


def test_a_prefix_of_two_names_is_ambiguous(work: Workplace) -> None:
    work.launch("train-a")
    work.launch("train-b")
    with pytest.raises(AinfinityError) as caught:
        work.service.stop_job("train", ADMIN)
    assert (caught.value.code, caught.value.exit_code) == ("ambiguous_name", 2)
    assert work.service.stop_job("train-a", ADMIN).state == S.CANCELLED

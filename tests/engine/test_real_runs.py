"""The engine over the local backend: real supervisors and processes, scripts for trainers."""

from __future__ import annotations

import json
import os
import signal

import pytest

from ainfinity.compute import folder, processes
from ainfinity.schema.states import JobState
from ainfinity.schema.views import JobQuery
from ainfinity.services.artifacts import ArtifactService
from ainfinity.services.changes import ChangeService
from tests.engine.workshop import Workshop, wait_for
from tests.services.workplace import ADMIN

OVER = ("succeeded", "failed", "cancelled")


def events_of(shop: Workshop, job: str, prefix: str = "") -> list[str]:
    return [str(event.type) for event in shop.events(job) if event.type.startswith(prefix)]


def test_a_run_from_launch_to_its_verified_export(shop: Workshop) -> None:
    job = shop.submit()
    with shop.engine() as engine:
        assert engine.until(job, *OVER) == "succeeded", shop.row(job)
        engine.tick(2)
        assert engine.compute.observe_all() == {}  # released
    # Whether a tick falls into the moment of setting up is chance.
    told = [kind for kind in events_of(shop, job, "attempt.") if kind != "attempt.setting_up"]
    assert told == ["attempt.intended", "attempt.launched", "attempt.running", "attempt.succeeded"]
    row = shop.row(job)
    assert (row.progress.step, row.progress.total_steps, row.progress.loss) == (8, 8, 0.5)
    assert [point.step for point in ChangeService(shop.store).metrics(job)] == list(range(1, 9))
    kinds = [(artifact.kind, artifact.step) for artifact in shop.service.get_job_status(job).artifacts]
    assert kinds == [("checkpoint", 4), ("checkpoint", 8), ("adapter", 8), ("file", None)]
    (path,) = ArtifactService(shop.store, shop.settings.attempts_dir).pull(job, "adapter", str(shop.root / "out"))
    assert path.endswith("out/adapter/adapter_model.safetensors")
    shop.check_fold()
    wait_for(lambda: not shop.alive(), "the supervisor's end")


@pytest.mark.parametrize(
    "harm",
    [
        "(output / 'adapter' / 'adapter_model.safetensors').write_bytes(b'changed')",
        "(output / 'adapter' / 'adapter_model.safetensors').unlink()",
        "(output / 'adapter' / 'adapter_model.safetensors').write_bytes(b'')",
    ],
)
def test_a_damaged_export_fails_the_job(shop: Workshop, harm: str) -> None:
    job = shop.submit(script=f"train()\nfinish()\n{harm}\n")
    with shop.engine() as engine:
        assert engine.until(job, *OVER) == "failed"
    row = shop.row(job)
    assert row.error_code == "export_invalid"
    assert "adapter_model.safetensors" in row.error_message


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("train()", "no_result"),
        ("train(3)\nsys.exit(3)", "exit_code"),
        ("train(3)\nos.kill(os.getpid(), 9)", "exit_code"),
        ("say('failed', code='out_of_memory', message='No room.', hint='Halve it.', rank=0)\nsys.exit(1)",
         "out_of_memory"),
        ("say('finished', step=1)", "export_invalid"),
        ("say('finished', step=1, output=str(output), files=[])", "export_invalid"),
        ("say('finished', step=1, output='x' * 5000, files=[{'path': chr(0), 'size': 'big', 'sha256': 7}])",
         "export_invalid"),
        ("say('finished', step=1, output='/etc', files=[{'path': 'passwd', 'size': 1, 'sha256': ''}])",
         "export_invalid"),
        ("train()\nfinish()\nsys.exit(1)", "exit_code"),
    ],
)  # fmt: skip
def test_how_a_run_can_fail(shop: Workshop, script: str, code: str) -> None:
    job = shop.submit(script=script)
    with shop.engine() as engine:
        assert engine.until(job, *OVER) == "failed"
    row = shop.row(job)
    assert row.error_code == code
    assert row.error_message
    assert "None" not in row.error_message
    assert shop.attempt(job).finished_at is not None


def test_retries_go_on_from_the_checkpoint(shop: Workshop) -> None:
    attempts = {1: "train(6)\nsys.exit(1)", 2: "train(7)\nsys.exit(1)"}
    job = shop.submit(attempts=attempts, policy__retries=2)
    with shop.engine() as engine:
        assert engine.until(job, *OVER) == "succeeded"
    detail = shop.service.get_job_status(job)
    assert [(attempt.number, attempt.state) for attempt in detail.attempts] == [
        (1, "failed"), (2, "failed"), (3, "succeeded")
    ]  # fmt: skip
    assert [event.data["resumed_step"] for event in shop.events(job) if event.type == "trainer.started"] == [None, 4, 4]
    shop.check_fold()


def test_retries_end(shop: Workshop) -> None:
    job = shop.submit(script="sys.exit(1)", policy__retries=1)
    with shop.engine() as engine:
        assert engine.until(job, *OVER) == "failed"
    assert shop.row(job).attempt == 2


def test_a_supervisor_killed_is_a_loss_and_a_new_attempt_resumes(shop: Workshop) -> None:
    job = shop.submit(attempts={1: "train(4)\nwait('there')"})
    with shop.engine() as engine:
        engine.until(job, "running")
        trainer = shop.reached("first", "there")
        os.kill(shop.supervisor(job), signal.SIGKILL)
        assert engine.until(job, *OVER) == "succeeded"
    # What the dead supervisor left was ended before the next attempt began.
    wait_for(lambda: trainer not in shop.alive(), "the first trainer's end")
    states = [attempt.state for attempt in shop.service.get_job_status(job).attempts]
    assert states == ["lost", "succeeded"]
    order = events_of(shop, job, "attempt.")
    assert order.index("attempt.lost") < len(order) - 1 - order[::-1].index("attempt.intended")


@pytest.mark.parametrize("recover", ["auto", "never"])
def test_after_a_reboot(shop: Workshop, recover: str) -> None:
    """All processes are gone, and pids mean other processes now."""
    job = shop.submit(attempts={1: "train(4)\nwait('there')"}, policy__recover=recover)
    with shop.engine() as engine:
        engine.until(job, "running")
        trainer = shop.reached("first", "there")
        for pid in (shop.supervisor(job), trainer):
            os.kill(pid, signal.SIGKILL)
    claim = shop.settings.attempts_dir / shop.attempt(job).name / "claim.json"
    record = json.loads(claim.read_text())
    # It was another boot, after which this very process has the supervisor's old pid.
    start = record["start"].replace(processes.boot_id(), "another-boot")
    assert start != record["start"]
    claim.write_text(json.dumps(record | {"pid": os.getpid(), "start": start}))
    assert not folder.AttemptFolder(claim.parent).owner().is_alive
    assert not shop.engine(holder="early").fence.acquire()
    shop.clock.move(shop.settings.lease)  # the lease of the last worker, gone without a word, runs out
    with shop.engine(holder="first front") as engine:
        assert engine.until(job, *OVER) == ("succeeded" if recover == "auto" else "failed")
    detail = shop.service.get_job_status(job)
    assert detail.attempts[0].state == "lost"
    if recover == "auto":
        started = [event.data["resumed_step"] for event in shop.events(job) if event.type == "trainer.started"]
        assert started == [None, 4]
    else:
        assert (detail.job.error_code, len(detail.attempts)) == ("lost", 1)
        assert detail.job.error_message


def test_cancel_while_it_runs_ends_every_process(shop: Workshop) -> None:
    job = shop.submit(script="train(2)\nwait('there')")
    with shop.engine() as engine:
        engine.until(job, "running")
        trainer = shop.reached("first", "there")
        assert trainer in shop.alive()
        assert shop.service.stop_job(job, ADMIN).state == "cancelling"
        assert engine.until(job, *OVER) == "cancelled"
    assert trainer not in shop.alive()
    wait_for(lambda: not shop.alive(), "the supervisor's end")
    assert shop.attempt(job).state == "cancelled"
    assert not shop.row(job).error_code


def test_a_deadline_ends_the_attempt_and_says_how_to_go_on(shop: Workshop) -> None:
    job = shop.submit(script="train(4)\nwait('never')", policy__max_duration=0.5)
    with shop.engine() as engine:
        assert engine.until(job, *OVER) == "failed"
    row = shop.row(job)
    assert row.error_code == "deadline"
    assert "policy.max_duration" in row.error_message


def test_a_retry_from_a_step_hands_it_to_the_trainer(shop: Workshop) -> None:
    script = "start(step=os.environ.get('AINFINITY_RESUME_STEP'))\nfinish()"
    job = shop.submit(script=script, attempts={1: "train(8)\nsys.exit(1)"})
    with shop.engine() as engine:
        engine.until(job, "failed")
        shop.service.retry_job(job, ADMIN, from_step=4)
        assert engine.until(job, *OVER) == "succeeded"
    assert [event.data.get("step") for event in shop.events(job) if event.type == "trainer.started"] == [None, "4"]


def test_many_jobs_share_the_slots(shop: Workshop) -> None:
    jobs = [shop.submit(f"job-{number}") for number in range(6)]
    most = 0
    with shop.engine() as engine:
        for job in jobs:
            engine.until(job, *OVER)
            most = max(most, len([row for row in shop.service.list_jobs(JobQuery()) if row.state == JobState.RUNNING]))
    assert {shop.row(job).state for job in jobs} == {"succeeded"}
    assert most <= shop.settings.local_slots

"""What plain SkyPilot started is shown among our jobs, and nothing is done to it before somebody claims it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ainfinity.core.exceptions import ComputeUnreachable, NotAllowed, NotFound, UsageError, WrongState
from ainfinity.schema.event import EventType
from ainfinity.services.adoption import AdoptionService
from ainfinity.services.changes import ChangeService
from ainfinity.services.outside import OutsideService
from ainfinity.store import jobs, orphans
from ainfinity.store.orphans import Orphan
from tests.services.outside import Skies
from tests.services.workplace import ADMIN, VIEWER, Workplace


@pytest.fixture
def skies() -> Skies:
    return Skies()


@pytest.fixture
def service(work: Workplace, skies: Skies) -> AdoptionService:
    return AdoptionService(work.store, OutsideService(work.root / "cache", work.clock, skies))


def prefix(work: Workplace) -> str:
    with work.store.read() as connection:
        return f"ain-{jobs.installation(connection)}-"


def test_a_cluster_becomes_a_running_job_whose_cost_counts_from_its_launch(
    work: Workplace, service: AdoptionService, skies: Skies
) -> None:
    skies.add("My_Cluster", launched_at=work.clock.now() - 7200)
    row = service.adopt("cluster", "My_Cluster", ADMIN)
    assert (row.name, row.state, row.origin, row.claimed) == ("my-cluster", "running", "cluster:My_Cluster", False)
    assert (row.infra, row.price_per_hour, row.cost) == ("slurm/loopback", 20.0, pytest.approx(40.0))
    (attempt,) = work.service.get_job_status(row.id).attempts
    assert (attempt.name, attempt.backend, attempt.state) == ("cluster:My_Cluster", "skypilot", "running")
    assert (attempt.given, attempt.cost, attempt.deadline) == ("1x H100:8 slurm/loopback", pytest.approx(40.0), None)
    work.check_fold()


def test_a_managed_job_that_waits_is_not_said_to_run(work: Workplace, service: AdoptionService, skies: Skies) -> None:
    skies.add("train", "managed", ident="7", status="PENDING", infra="-", given="", price_per_hour=None)
    row = service.adopt("managed", "7", ADMIN)
    assert (row.state, row.origin, row.infra, row.cost) == ("launching", "managed:7", "any", 0.0)
    with work.store.read() as connection:
        assert orphans.adopted_names(connection) == ["managed:7"]
    work.check_fold()


def test_an_unknown_price_makes_an_unknown_cost(work: Workplace, service: AdoptionService, skies: Skies) -> None:
    skies.add("theirs", price_per_hour=None, launched_at=work.clock.now() - 60)
    assert service.adopt("cluster", "theirs", ADMIN).cost is None


def test_adopting_again_is_the_same_job(work: Workplace, service: AdoptionService, skies: Skies) -> None:
    skies.add("theirs")
    first = service.adopt("cluster", "theirs", ADMIN)
    skies.down = True
    assert service.adopt("cluster", "theirs", ADMIN).id == first.id
    assert len(work.service.list_jobs()) == 1


def test_a_name_that_a_live_job_has_gets_a_number(work: Workplace, service: AdoptionService, skies: Skies) -> None:
    work.launch("theirs")
    skies.add("theirs")
    assert service.adopt("cluster", "theirs", ADMIN).name == "theirs-2"


@pytest.mark.parametrize("verb", ["stop_job", "teardown_job", "extend_job", "keep_job"])
def test_before_the_claim_nothing_can_be_done_to_it(
    work: Workplace, service: AdoptionService, skies: Skies, verb: str
) -> None:
    skies.add("theirs")
    job = service.adopt("cluster", "theirs", ADMIN).id
    more: tuple[float, ...] = (60.0,) if verb in ("extend_job", "keep_job") else ()
    call: Callable[..., object] = getattr(work.service, verb)
    before = work.events(job)
    with pytest.raises(WrongState) as caught:
        call(job, *more, ADMIN)
    if verb != "extend_job":  # it has no deadline either way
        assert "ainfinity adopt --cluster theirs --claim" in caught.value.hint
    assert work.events(job) == before


def test_after_the_claim_it_can_be_cancelled(work: Workplace, service: AdoptionService, skies: Skies) -> None:
    skies.add("theirs")
    job = service.adopt("cluster", "theirs", ADMIN).id
    assert service.adopt("cluster", "theirs", ADMIN, claim=True).claimed
    service.adopt("cluster", "theirs", ADMIN, claim=True)
    assert [event.type for event in work.events(job)].count(EventType.CLAIMED) == 1
    assert work.service.stop_job(job, ADMIN).state == "cancelling"
    with work.store.read() as connection:
        audit = connection.exec_driver_sql("SELECT action FROM audit ORDER BY id").scalars().all()
    assert audit == ["adopt", "claim", "cancel"]


def test_it_can_be_claimed_at_once(service: AdoptionService, skies: Skies) -> None:
    skies.add("theirs")
    assert service.adopt("cluster", "theirs", ADMIN, claim=True).claimed


def test_one_that_is_over_can_be_adopted_anew(work: Workplace, service: AdoptionService, skies: Skies) -> None:
    skies.add("theirs", launched_at=work.clock.now())
    first = service.adopt("cluster", "theirs", ADMIN).id
    work.record(first, EventType.ATTEMPT_SUCCEEDED, EventType.SUCCEEDED)
    second = service.adopt("cluster", "theirs", ADMIN)
    assert second.id != first
    assert second.state == "running"
    assert [one.name for one in work.service.get_job_status(second.id).attempts] == ["cluster:theirs@2"]
    with work.store.read() as connection:
        assert orphans.adopted_names(connection) == ["cluster:theirs@2"]
        assert orphans.owners(connection, ["theirs"])["theirs"].ended_at is None


# --- what can be adopted ------------------------------------------------------------


def test_the_list_says_what_is_shown_already_and_leaves_out_what_is_ours(
    work: Workplace, service: AdoptionService, skies: Skies
) -> None:
    skies.add("theirs")
    skies.add("train", "managed", ident="7")
    ours = skies.add(f"{prefix(work)}abcdefghij-a1")
    job = work.launch().id
    work.record(job, (EventType.ATTEMPT_INTENDED, {"name": ours, "backend": "skypilot"}), EventType.ATTEMPT_RUNNING)
    adopted = service.adopt("managed", "7", ADMIN).id
    rows = service.adoptable().rows
    assert [(row.kind, row.ident, row.job_id) for row in rows] == [("cluster", "theirs", ""), ("managed", "7", adopted)]
    with pytest.raises(NotFound):
        service.adopt("cluster", ours, ADMIN)


def test_an_orphan_of_ours_can_be_adopted_and_is_one_no_more(
    work: Workplace, service: AdoptionService, skies: Skies
) -> None:
    name = skies.add(f"{prefix(work)}abcdefghij-a1")
    now = work.clock.now()
    with work.store.write() as connection:
        orphans.put(connection, [Orphan(name, "skypilot", "cluster", now, now)])
    service.adopt("cluster", name, ADMIN)
    with work.store.read() as connection:
        assert orphans.listed(connection) == []
        assert orphans.owners(connection, [name])[name].only_shown


def test_what_was_started_after_the_last_list_is_found(work: Workplace, service: AdoptionService, skies: Skies) -> None:
    service.adoptable()
    skies.add("new")
    work.clock.move(1)
    assert service.adopt("cluster", "new", ADMIN).state == "running"


def test_what_is_not_there_is_said_so(work: Workplace, service: AdoptionService) -> None:
    with pytest.raises(NotFound, match="no managed job 9"):
        service.adopt("managed", "9", ADMIN)
    with pytest.raises(UsageError, match="no number"):
        service.adopt("managed", "train", ADMIN)
    assert work.service.list_jobs() == []


def test_without_skypilot_it_is_said_why(work: Workplace, service: AdoptionService, skies: Skies) -> None:
    skies.down = True
    with pytest.raises(ComputeUnreachable):
        service.adoptable()
    with pytest.raises(ComputeUnreachable):
        service.adopt("cluster", "theirs", ADMIN)


def test_a_viewer_may_not_adopt(service: AdoptionService, skies: Skies) -> None:
    skies.add("theirs")
    with pytest.raises(NotAllowed):
        service.adopt("cluster", "theirs", VIEWER)


def test_a_worker_is_wanted_for_it(work: Workplace, service: AdoptionService, skies: Skies) -> None:
    assert ChangeService(work.store).worker().live_jobs == 0
    skies.add("theirs")
    service.adopt("cluster", "theirs", ADMIN)
    assert ChangeService(work.store).worker().live_jobs == 1

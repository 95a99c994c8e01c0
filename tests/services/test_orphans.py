"""What the engine found and what SkyPilot lists are one list, and an answer to it counts whoever asks first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ainfinity.core.exceptions import NotAllowed, NotFound, UsageError
from ainfinity.schema.event import EventType
from ainfinity.services.orphans import OrphanService
from ainfinity.services.outside import OutsideService
from ainfinity.store import jobs, orphans
from ainfinity.store.orphans import Orphan
from tests.services.outside import Skies
from tests.services.workplace import ADMIN, APPROVER, Workplace

DAY = 86400.0


@pytest.fixture
def skies() -> Skies:
    return Skies()


@pytest.fixture
def service(work: Workplace, skies: Skies) -> OrphanService:
    outside = OutsideService(work.root / "cache", work.clock, skies)
    return OrphanService(work.store, outside, DAY)


def named(work: Workplace, job: str = "abcdefghij") -> str:
    with work.store.read() as connection:
        return f"ain-{jobs.installation(connection)}-{job}-a1"


def recorded(work: Workplace, name: str, **given: object) -> None:
    now = work.clock.now()
    orphan = Orphan(name, "skypilot", "cluster", now, now, price_per_hour=10.0)
    with work.store.write() as connection:
        orphans.put(connection, [replace(orphan, **given)])  # type: ignore[arg-type]


def test_what_the_engine_recorded_is_listed_with_what_it_costs(work: Workplace, service: OrphanService) -> None:
    name = named(work)
    recorded(work, name, launched_at=work.clock.now() - 7200, given="2x H100:8 slurm/x")
    work.clock.move(3600)
    (row,) = service.list().rows
    assert (row.name, row.price_per_hour, row.leaked, row.given) == (name, 10.0, 30.0, "2x H100:8 slurm/x")
    assert row.removed_at == work.clock.now() - 3600 + DAY


def test_an_unknown_price_is_none_and_never_zero(work: Workplace, service: OrphanService) -> None:
    recorded(work, named(work), price_per_hour=None)
    work.clock.move(3600)
    (row,) = service.list().rows
    assert (row.price_per_hour, row.leaked) == (None, None)


def test_what_no_worker_has_seen_yet_is_listed_and_left_for_one(
    work: Workplace, service: OrphanService, skies: Skies
) -> None:
    name = skies.add(named(work), launched_at=work.clock.now() - 3600)
    (row,) = service.list().rows
    assert (row.name, row.leaked) == (name, pytest.approx(20.0))
    with work.store.read() as connection:
        (known,) = orphans.listed(connection)
        assert orphans.open_count(connection) == 1
    assert (known.name, known.told) == (name, False)
    assert service.list().rows[0].first_seen == row.first_seen


def test_what_an_attempt_owns_is_none_of_them(work: Workplace, service: OrphanService, skies: Skies) -> None:
    job = work.launch().id
    name = skies.add(named(work, job))
    work.record(job, (EventType.ATTEMPT_INTENDED, {"name": name, "backend": "skypilot"}), EventType.ATTEMPT_RUNNING)
    assert service.list().rows == ()


def test_what_outlived_its_attempt_is_listed_as_being_removed(
    work: Workplace, service: OrphanService, skies: Skies
) -> None:
    job = work.launch().id
    name = skies.add(named(work, job))
    work.record(job, (EventType.ATTEMPT_INTENDED, {"name": name, "backend": "skypilot"}), EventType.ATTEMPT_FAILED)
    work.clock.move(1)
    (row,) = service.list(refresh=True).rows
    assert (row.answer, row.answered_by, row.removed_at) == ("remove", "engine", None)
    with work.store.read() as connection:
        assert orphans.listed(connection) == []


def test_a_list_from_before_an_attempts_end_says_nothing_of_it(
    work: Workplace, service: OrphanService, skies: Skies
) -> None:
    job = work.launch().id
    name = skies.add(named(work, job))
    service.list()
    work.clock.move(10)
    work.record(job, (EventType.ATTEMPT_INTENDED, {"name": name, "backend": "skypilot"}), EventType.ATTEMPT_FAILED)
    with work.store.write() as connection:
        orphans.forget(connection, [name])
    assert service.list().rows == ()


def test_another_installations_machines_are_not_even_asked_for(
    work: Workplace, service: OrphanService, skies: Skies
) -> None:
    skies.add("ain-00000000-abcdefghij-a1")
    skies.add("somebodys")
    assert service.list().rows == ()


def test_without_skypilot_what_is_known_is_listed_with_the_reason(
    work: Workplace, service: OrphanService, skies: Skies
) -> None:
    recorded(work, named(work))
    skies.down = True
    found = service.list()
    assert (len(found.rows), found.at, found.error["code"]) == (1, 0.0, "compute_unreachable")


# --- answers ------------------------------------------------------------


@pytest.mark.parametrize("answer", ["keep", "remove"])
def test_an_answer_is_recorded_with_who_gave_it(work: Workplace, service: OrphanService, answer: str) -> None:
    name = named(work)
    recorded(work, name)
    row = service.answer(name, answer, ADMIN)  # type: ignore[arg-type]
    assert (row.answer, row.answered_by, row.removed_at) == (answer, ADMIN.name, None)
    with work.store.read() as connection:
        audit = connection.exec_driver_sql("SELECT actor, action, subject FROM audit").all()
        assert orphans.open_count(connection) == (answer == "remove")
    assert [tuple(one) for one in audit] == [(ADMIN.name, f"orphan.{answer}", name)]


def test_a_later_answer_takes_the_place_of_an_earlier_one(work: Workplace, service: OrphanService) -> None:
    name = named(work)
    recorded(work, name)
    service.answer(name, "keep", ADMIN)
    assert service.answer(name, "remove", ADMIN).answer == "remove"


def test_an_answer_outlives_what_the_engine_sees_next(work: Workplace, service: OrphanService) -> None:
    name = named(work)
    recorded(work, name)
    service.answer(name, "keep", ADMIN)
    recorded(work, name, price_per_hour=11.0)
    (row,) = service.list().rows
    assert (row.answer, row.price_per_hour) == ("keep", 11.0)


def test_one_that_only_skypilot_lists_can_be_answered_for(
    work: Workplace, service: OrphanService, skies: Skies
) -> None:
    name = skies.add(named(work))
    assert service.answer(name, "remove", ADMIN).answer == "remove"


def test_what_is_none_cannot_be_answered_for(work: Workplace, service: OrphanService, skies: Skies) -> None:
    skies.add("somebodys")
    with pytest.raises(NotFound, match="no orphan somebodys"):
        service.answer("somebodys", "remove", ADMIN)
    with pytest.raises(UsageError):
        service.answer("somebodys", "maybe", ADMIN)  # type: ignore[arg-type]


def test_not_everyone_may_answer(work: Workplace, service: OrphanService) -> None:
    name = named(work)
    recorded(work, name)
    with pytest.raises(NotAllowed):
        service.answer(name, "remove", APPROVER)
    assert service.list().rows[0].answer == ""

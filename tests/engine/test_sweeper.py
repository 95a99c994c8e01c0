"""What runs under our name and belongs to nobody is found, told, and removed unless somebody wants it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ainfinity.core.exceptions import LeaseLost
from ainfinity.domain.observation import Observation, Phase
from ainfinity.engine.fence import Fence
from ainfinity.engine.launch import attempt_name
from ainfinity.engine.outbox import FileNotifier, Outbox
from ainfinity.engine.reconciler import no_probe
from ainfinity.engine.sweeper import Sweeper
from ainfinity.schema.event import Event, EventType
from ainfinity.store import jobs, orphans
from ainfinity.store.orphans import Orphan
from tests.engine.workshop import shop_settings
from tests.services.workplace import Workplace, copy_database

DAY = 86400.0
OTHER = "ain-00000000-abcdefghij-a1"
UP_TO_RUNNING = (EventType.ATTEMPT_LAUNCHED, EventType.ATTEMPT_RUNNING)


class Killed(BaseException):
    """As by kill -9: nothing catches it."""


@dataclass
class Elsewhere:
    """A remote backend: machines by name, and the stops that were asked for."""

    machines: dict[str, Observation] = field(default_factory=dict[str, Observation])
    stops: list[str] = field(default_factory=list[str])
    name: str = "skypilot"
    lag: float = 20.0
    remote: bool = True
    stubborn: bool = False  # its machines outlive a stop

    def plant(self, name: str, **given: Any) -> str:
        seen: dict[str, Any] = {"price_per_hour": 12.0, "given": "2x H100:8 slurm/loopback", "handle": "cluster:x"}
        self.machines[name] = Observation(name, Phase.RUNNING, machine=True, **seen | given)
        return name

    def stop(self, name: str) -> None:
        self.stops.append(name)
        if not self.stubborn:
            self.machines.pop(name, None)


@dataclass
class Yard(Workplace):
    """A workplace with machines elsewhere, and a sweeper over them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.store.places = ("file", "chat")
        self.cloud = Elsewhere()
        with self.store.read() as connection:
            self.installation = jobs.installation(connection)
        self.restart()

    def restart(self, holder: str = "engine", **given: Any) -> None:
        """Go on with another worker; whatever the last one held has run out."""
        with self.store.write() as connection:
            connection.exec_driver_sql("UPDATE lease SET expires_at = 0")
        self.fence = Fence(self.store, holder, ttl=1e9, renew_after=1e8)
        assert self.fence.acquire()
        self.sweeper = Sweeper(self.fence, self.settings, given.get("probe", no_probe))

    def named(self, job_id: str = "abcdefghij", number: int = 1) -> str:
        return attempt_name(self.installation, job_id, number)

    def look(self, times: int = 1, every: float = 5.0, live: tuple[str, ...] = ()) -> None:
        """Sweep as the reconciler does: over the list as it is, then stop what is to be stopped."""
        for _ in range(times):
            found: Mapping[str, Observation] = dict(self.cloud.machines)
            for name in self.sweeper.sweep(self.cloud, found, live, self.clock.now()):  # type: ignore[arg-type]
                self.cloud.stop(name)
            self.clock.move(every)

    def known(self) -> list[Orphan]:
        with self.store.read() as connection:
            return orphans.listed(connection)

    def answer(self, name: str, what: str) -> None:
        with self.store.write() as connection:
            orphans.answer(connection, name, what, "local:ann")

    def told(self, kind: EventType) -> list[Event]:
        return [event for event in self.events() if event.type == kind]

    def attempt(self, *kinds: Any, name: str = "first") -> str:
        """The name of an attempt of a new job, after these events of it."""
        job = self.launch(name).id
        attempt = self.named(job)
        intended = (EventType.ATTEMPT_INTENDED, {"name": attempt, "backend": "skypilot"})
        self.record(job, intended, *kinds)
        return attempt


@pytest.fixture
def yard(tmp_path: Path, template: Path) -> Iterator[Yard]:
    settings = shop_settings(tmp_path)
    copy_database(template, settings.data_dir)
    yard = Yard(tmp_path, settings)
    yield yard
    yard.store.close()


# --- finding ------------------------------------------------------------


def test_an_orphan_is_recorded_and_owed_to_every_place_at_once(yard: Yard) -> None:
    name = yard.cloud.plant(yard.named(), launched_at=yard.clock.now() - 7200)
    yard.look(2)
    (orphan,) = yard.known()
    assert (orphan.name, orphan.kind, orphan.backend, orphan.price_per_hour) == (name, "cluster", "skypilot", 12.0)
    (event,) = yard.told(EventType.ORPHAN_FOUND)
    assert (event.job_id, event.data["name"]) == ("abcdefghij", name)
    assert event.data["leaked"] == pytest.approx(24.0, abs=0.1)
    with yard.store.read() as connection:
        owed = connection.exec_driver_sql("SELECT event_seq, place FROM delivery ORDER BY place").all()
    assert [tuple(row) for row in owed] == [(event.seq, "chat"), (event.seq, "file")]


def test_it_is_told_once(yard: Yard) -> None:
    yard.cloud.plant(yard.named())
    yard.look(10)
    yard.restart("next")
    yard.look(10)
    assert len(yard.told(EventType.ORPHAN_FOUND)) == 1


def test_one_list_is_not_believed(yard: Yard) -> None:
    name = yard.cloud.plant(yard.named())
    yard.look()
    del yard.cloud.machines[name]
    yard.look()
    yard.cloud.plant(name)
    yard.look()
    assert yard.known() == []


def test_what_a_live_job_owns_is_no_orphan(yard: Yard) -> None:
    name = yard.cloud.plant(yard.named())
    yard.look(5, live=(name,))
    attempt = yard.cloud.plant(yard.attempt(*UP_TO_RUNNING))
    yard.look(5, live=(name,))  # recorded as live, whatever the view says
    assert (yard.known(), yard.cloud.stops, attempt in yard.cloud.machines) == ([], [], True)


def test_another_installations_machines_are_left_alone(yard: Yard) -> None:
    mine = yard.cloud.plant(yard.named())
    yard.cloud.plant(OTHER)
    yard.cloud.plant("my-own-cluster")
    for _ in range(10):
        yard.look(3)
        yard.clock.move(DAY)
    assert yard.cloud.stops == [mine]
    assert set(yard.cloud.machines) == {OTHER, "my-own-cluster"}
    assert {event.data["name"] for event in yard.told(EventType.ORPHAN_FOUND)} == {mine}


def test_what_costs_nothing_is_no_orphan(yard: Yard) -> None:
    name = yard.named()
    yard.cloud.machines[name] = Observation(name, Phase.EXITED, machine=False, exit_code=0)
    yard.look(3)
    assert yard.known() == []


def test_a_managed_job_is_one_too(yard: Yard) -> None:
    yard.cloud.plant(yard.named(), handle="managed:7", price_per_hour=None)
    yard.look(2)
    (orphan,) = yard.known()
    assert (orphan.kind, orphan.price_per_hour, orphan.leaked(yard.clock.now())) == ("managed", None, None)


def test_a_price_that_comes_later_counts_from_the_launch(yard: Yard) -> None:
    name = yard.cloud.plant(yard.named(), price_per_hour=None)
    yard.look(2)
    launched = yard.clock.now() - 3600
    yard.cloud.plant(name, price_per_hour=10.0, launched_at=launched)
    yard.look()
    (orphan,) = yard.known()
    assert orphan.leaked(launched + 7200) == pytest.approx(20.0)


def test_one_that_a_front_saw_first_is_told_all_the_same(yard: Yard) -> None:
    name = yard.cloud.plant(yard.named())
    now = yard.clock.now()
    with yard.store.write() as connection:
        orphans.put(connection, [Orphan(name, "skypilot", "cluster", now, now, told=False)])
    yard.look(3)
    assert len(yard.told(EventType.ORPHAN_FOUND)) == 1
    assert yard.known()[0].first_seen == now


def test_one_that_a_front_saw_and_that_is_gone_is_not_told(yard: Yard) -> None:
    now = yard.clock.now()
    with yard.store.write() as connection:
        orphans.put(connection, [Orphan(yard.named(), "skypilot", "cluster", now, now, told=False)])
    yard.look(10)
    assert (yard.known(), yard.events()) == ([], [])


def test_fronts_are_given_what_was_seen_anyway(yard: Yard) -> None:
    """Also what live jobs own: whether it has an owner is looked up when the list is read."""
    yard.cloud.plant(OTHER)
    name = yard.cloud.plant(yard.named(), launched_at=1.0)
    live = yard.cloud.plant(yard.named("bbbbbbbbbb"))
    yard.look(live=(live,))
    kept = yard.sweeper.answers.read("orphans", {"prefix": f"ain-{yard.installation}-"})
    assert kept is not None
    assert [(one["name"], one["price_per_hour"]) for one in kept.value] == [(name, 12.0), (live, 12.0)]
    assert kept.at == yard.clock.now() - 5
    del yard.cloud.machines[name]
    yard.look(live=(live,))
    after = yard.sweeper.answers.read("orphans", {"prefix": f"ain-{yard.installation}-"})
    assert after is not None
    assert [one["name"] for one in after.value] == [live]  # at once, or a front would take it for there


# --- answers ------------------------------------------------------------


def test_an_unanswered_orphan_is_removed_after_a_day(yard: Yard) -> None:
    name = yard.cloud.plant(yard.named())
    yard.look(2)
    yard.clock.move(DAY - 60)
    yard.look(2)
    assert yard.cloud.stops == []
    yard.clock.move(60)
    yard.look(10)
    assert yard.cloud.stops == [name]
    (gone,) = yard.told(EventType.ORPHAN_REMOVED)
    assert (gone.data["name"], gone.data["by"]) == (name, "engine")
    assert gone.data["leaked"] == pytest.approx(12.0 * 24, rel=0.01)
    assert yard.known() == []


def test_control_without_a_sweep_it_runs_for_ever(yard: Yard) -> None:
    name = yard.cloud.plant(yard.named())
    for _ in range(10):
        yard.clock.move(DAY)
    assert (set(yard.cloud.machines), yard.events()) == ({name}, [])


def test_one_to_keep_is_kept_and_still_listed(yard: Yard) -> None:
    name = yard.cloud.plant(yard.named())
    yard.look(2)
    yard.answer(name, "keep")
    yard.clock.move(30 * DAY)
    yard.look(5)
    assert (yard.cloud.stops, [one.name for one in yard.known()]) == ([], [name])
    assert yard.known()[0].answer == "keep"


def test_one_to_remove_is_removed_at_once(yard: Yard) -> None:
    name = yard.cloud.plant(yard.named())
    yard.look(2)
    yard.answer(name, "remove")
    yard.look()
    assert yard.cloud.stops == [name]


def test_a_stop_that_does_not_work_is_repeated_and_not_called_done(yard: Yard) -> None:
    name = yard.cloud.plant(yard.named())
    yard.look(2)
    yard.answer(name, "remove")
    yard.cloud.stubborn = True
    yard.look(8)
    assert 2 <= len(yard.cloud.stops) <= 4  # not with every look
    assert yard.told(EventType.ORPHAN_REMOVED) == []
    yard.cloud.stubborn = False
    yard.look(10)
    assert len(yard.told(EventType.ORPHAN_REMOVED)) == 1


def test_one_that_is_missing_for_a_moment_is_not_gone(yard: Yard) -> None:
    name = yard.cloud.plant(yard.named())
    yard.look(2)
    yard.cloud.machines.clear()
    yard.look(3)
    yard.cloud.plant(name)
    yard.look(3)
    assert (len(yard.known()), yard.told(EventType.ORPHAN_REMOVED)) == (1, [])
    yard.cloud.machines.clear()
    yard.look(10)
    (gone,) = yard.told(EventType.ORPHAN_REMOVED)
    assert gone.data["by"] == "outside"


# --- what belongs to an attempt of ours ------------------------------------------------------------


def test_a_machine_that_outlived_its_attempt_is_stopped_without_asking(yard: Yard) -> None:
    name = yard.cloud.plant(yard.attempt(*UP_TO_RUNNING, EventType.ATTEMPT_FAILED, EventType.FAILED))
    yard.look()
    assert yard.cloud.stops == []
    yard.look()
    assert (yard.cloud.stops, yard.known()) == ([name], [])


def test_an_adopted_one_is_only_shown(yard: Yard) -> None:
    name = yard.cloud.plant(yard.attempt(*UP_TO_RUNNING, EventType.ATTEMPT_FAILED, EventType.FAILED))
    with yard.store.write() as connection:
        connection.exec_driver_sql(f"UPDATE job SET origin = 'cluster:{name}'")
    yard.look(5)
    assert yard.cloud.stops == []
    with yard.store.write() as connection:
        connection.exec_driver_sql("UPDATE job SET claimed = 1")
    yard.look(1)
    assert yard.cloud.stops == [name]


def test_a_kept_machine_stays_until_its_time(yard: Yard) -> None:
    name = yard.cloud.plant(yard.attempt(*UP_TO_RUNNING, EventType.ATTEMPT_FAILED, EventType.FAILED))
    with yard.store.write() as connection:
        connection.exec_driver_sql(f"UPDATE attempt SET keep_until = {yard.clock.now() + 3600}")
    yard.look(5)
    assert yard.cloud.stops == []
    yard.clock.move(3600)
    yard.look(2)
    assert yard.cloud.stops == [name]


def test_an_orphan_that_is_adopted_is_one_no_more(yard: Yard) -> None:
    name = yard.named("aaaaaaaaaa")
    yard.cloud.plant(name)
    yard.look(2)
    job = yard.launch("adopted").id
    adopted = f"cluster:{name}"
    yard.record(job, (EventType.ADOPTED, {"origin": adopted}))
    yard.record(job, (EventType.ATTEMPT_INTENDED, {"name": adopted, "backend": "skypilot"}), *UP_TO_RUNNING)
    yard.look(2, live=(adopted,))
    assert (yard.known(), yard.told(EventType.ORPHAN_REMOVED), yard.cloud.stops) == ([], [], [])


# --- faults ------------------------------------------------------------


def test_a_worker_that_dies_after_recording_tells_it_once(yard: Yard) -> None:
    def die(step: str) -> None:
        raise Killed(step)

    yard.restart(probe=die)
    yard.cloud.plant(yard.named())
    yard.look()
    with pytest.raises(Killed):
        yard.look()
    yard.restart("next")
    yard.look(3)
    assert (len(yard.known()), len(yard.told(EventType.ORPHAN_FOUND))) == (1, 1)


def test_a_late_owner_of_the_lease_records_nothing(yard: Yard) -> None:
    late = yard.sweeper
    yard.cloud.plant(yard.named())
    yard.look()
    yard.restart("next")
    yard.sweeper = late
    with pytest.raises(LeaseLost):
        yard.look()
    assert (yard.known(), yard.events()) == ([], [])


def test_the_notice_says_what_it_costs_and_what_to_do(yard: Yard) -> None:
    name = yard.cloud.plant(yard.named(), launched_at=yard.clock.now() - 3600)
    yard.look(2)
    file = yard.root / "notices.jsonl"
    outbox = Outbox(yard.fence, {"file": FileNotifier(file)}, no_probe)
    outbox.run()
    notice = json.loads(file.read_text())
    assert (notice["event"], notice["orphan"], notice["price_per_hour"]) == ("orphan.found", name, 12.0)
    assert notice["leaked"] == pytest.approx(12.0, abs=0.1)
    assert notice["commands"][0] == "ainfinity orphans"
    assert all(part in notice["message"] for part in (name, "$12.00/h", "$12.0", "ainfinity orphans keep"))
    yard.cloud.machines.clear()
    yard.look(8)
    outbox.run()
    gone = json.loads(file.read_text().splitlines()[1])
    assert (gone["event"], gone["orphan"]) == ("orphan.removed", name)


def test_an_unknown_price_is_told_as_unknown(yard: Yard) -> None:
    yard.cloud.plant(yard.named(), price_per_hour=None)
    yard.look(2)
    file = yard.root / "notices.jsonl"
    Outbox(yard.fence, {"file": FileNotifier(file)}, no_probe).run()
    notice = json.loads(file.read_text())
    assert (notice["price_per_hour"], notice["leaked"]) == (None, None)
    assert "unknown" in notice["message"]
    assert "$0" not in notice["message"]

"""Every state that SkyPilot knows has a meaning here; a new one of a newer SkyPilot makes these fail."""

from __future__ import annotations

from enum import Enum
from typing import Any

import pytest

from ainfinity.compute.remote.states import CLUSTER, CLUSTER_JOB, MANAGED, State, state_of
from ainfinity.domain.observation import Phase

pytest.importorskip("sky")

from sky.jobs.state import ManagedJobStatus
from sky.skylet.job_lib import JobStatus
from sky.utils.status_lib import ClusterStatus

TABLES: list[tuple[dict[str, State], Any]] = [
    (MANAGED, ManagedJobStatus),
    (CLUSTER_JOB, JobStatus),
    (CLUSTER, ClusterStatus),
]


@pytest.mark.parametrize(("table", "states"), TABLES)
def test_each_state_of_skypilot_is_in_its_table_and_no_other(table: dict[str, State], states: type[Enum]) -> None:
    assert set(table) == {str(state.value) for state in states}


@pytest.mark.parametrize(("table", "states"), TABLES[:2])
def test_what_skypilot_calls_terminal_is_an_end(table: dict[str, State], states: Any) -> None:
    assert {word for word, state in table.items() if state.is_end} == {
        state.value for state in states if state.is_terminal()
    }


def test_only_success_exits_with_0() -> None:
    for table in (MANAGED, CLUSTER_JOB):
        assert [word for word, state in table.items() if state.exit_code == 0] == ["SUCCEEDED"]


def test_recovering_is_a_state_of_its_own_and_no_end() -> None:
    assert state_of(MANAGED, "RECOVERING").phase == Phase.RECOVERING
    assert [word for word, state in MANAGED.items() if state.phase == Phase.RECOVERING] == ["RECOVERING"]


def test_a_failure_without_an_exit_code_of_its_own_says_what_to_do() -> None:
    coded = {state.code: state.reason for table in (MANAGED, CLUSTER_JOB) for state in table.values() if state.code}
    assert set(coded) == {"setup_failed", "prechecks_failed", "no_resources"}
    assert all(len(reason.split(".")) >= 2 for reason in coded.values())


def test_an_unknown_state_is_never_an_end() -> None:
    for table in (MANAGED, CLUSTER_JOB, CLUSTER):
        assert not state_of(table, "INVENTED").is_end

from __future__ import annotations

from pathlib import Path

import pytest

from training.claim import ClaimedFolder, read_claim
from training.errors import EXIT_INVALID, EXIT_SECOND_COPY, TrainingError


def claim(folder: Path, attempt: str, task: str = "") -> int:
    """Claim and let go; how often the attempt has been restarted."""
    claimed = ClaimedFolder(folder, attempt, task)
    claimed.release()
    return claimed.claim.restarts


def refused(folder: Path, attempt: str, task: str = "") -> TrainingError:
    before = read_claim(folder)
    with pytest.raises(TrainingError) as caught:
        ClaimedFolder(folder, attempt, task)
    assert read_claim(folder) == before
    return caught.value


def test_the_same_attempt_and_task_is_a_recovery(tmp_path: Path) -> None:
    assert [claim(tmp_path, "job-a1", "task") for _ in range(3)] == [0, 1, 2]


def test_another_task_of_the_attempt_is_a_second_copy(tmp_path: Path) -> None:
    claim(tmp_path, "job-a1", "task")
    error = refused(tmp_path, "job-a1", "other")
    assert (error.code, error.exit_code) == ("second_copy", EXIT_SECOND_COPY)


def test_a_copy_that_starts_while_the_first_runs_is_refused(tmp_path: Path) -> None:
    first = ClaimedFolder(tmp_path, "job-a1", "")
    assert refused(tmp_path, "job-a1").exit_code == EXIT_SECOND_COPY
    first.release()
    assert claim(tmp_path, "job-a1") == 1


def test_a_newer_attempt_takes_over_and_the_older_one_notices(tmp_path: Path) -> None:
    older = ClaimedFolder(tmp_path, "job-a9", "task")
    older.check()
    newer = ClaimedFolder(tmp_path, "job-a10", "other")
    assert newer.claim.restarts == 0
    newer.check()
    with pytest.raises(TrainingError, match="job-a10 has taken over"):
        older.check()
    assert refused(tmp_path, "job-a9", "task").code == "second_copy"


def test_another_jobs_folder_is_refused(tmp_path: Path) -> None:
    claim(tmp_path, "job-a1")
    error = refused(tmp_path, "other-a2")
    assert (error.code, error.exit_code) == ("checkpoints_of_another_job", EXIT_INVALID)


def test_runs_by_hand_have_no_name_and_take_any_folder(tmp_path: Path) -> None:
    assert [claim(tmp_path, attempt) for attempt in ("", "", "job-a1", "")] == [0, 1, 0, 0]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"attempt": 1}'])
def test_a_claim_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "CLAIM").write_text(text)
    assert claim(tmp_path, "job-a1") == 0

"""The snapshot of jobs: whatever way the news is cut into items, the picture is the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ainfinity.schema.event import Event, EventType
from ainfinity.schema.states import JobState
from ainfinity.schema.views import FeedItem, JobRow, Progress
from tests.tui.double import NOW, job_row
from tui.model import JobsModel, sort_key

IDS = ("aaa", "bbb", "ccc", "ddd")


@st.composite
def histories(draw: st.DrawFn) -> list[JobRow | tuple[str, Progress]]:
    """News in order: rows with a rising seq, progress with a rising rev."""
    news: list[JobRow | tuple[str, Progress]] = []
    current: dict[str, JobRow] = {}
    for index in range(draw(st.integers(0, 25))):
        job = draw(st.sampled_from(IDS))
        if job in current and draw(st.booleans()):
            progress = Progress(index, 100, float(index), rev=index + 1)
            current[job] = replace(current[job], progress=progress)
            news.append((job, progress))
        else:
            old = current.get(job) or job_row(job, f"name-{job}", submitted_at=NOW - ord(job[0]))
            state = draw(st.sampled_from(list(JobState)))
            current[job] = replace(old, state=state, seq=index + 1, priority=draw(st.integers(-1, 1)))
            news.append(current[job])
    return news


def items(news: list[JobRow | tuple[str, Progress]], cuts: list[int]) -> list[FeedItem]:
    """Cut news into feed items, each holding the last word about its jobs, as the port promises."""
    found: list[FeedItem] = []
    for start, end in zip([0, *cuts], [*cuts, len(news)], strict=True):
        rows: dict[str, JobRow] = {}
        moved: dict[str, Progress] = {}
        for entry in news[start:end]:
            if isinstance(entry, JobRow):
                rows[entry.id] = entry
            else:
                moved[entry[0]] = entry[1]
        found.append(FeedItem(end, end, (), tuple(rows.values()), moved))
    return found


@given(histories(), st.data())
def test_any_split_of_the_feed_gives_the_same_rows(
    news: list[JobRow | tuple[str, Progress]], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(news)), max_size=8)))
    whole, split = JobsModel(), JobsModel()
    for entry in news:
        whole.apply(items([entry], [])[0])
    for item in items(news, cuts):
        split.apply(item)
    assert split.rows == whole.rows
    assert split.visible == whole.visible
    assert +split.counts == +whole.counts
    expected = sorted(whole.rows.values(), key=sort_key)
    assert whole.visible == [row.id for row in expected]


@given(histories(), st.data())
def test_hearing_old_news_again_changes_nothing(news: list[JobRow | tuple[str, Progress]], data: st.DataObject) -> None:
    model = JobsModel()
    for item in items(news, []):
        model.apply(item)
    rows, visible = dict(model.rows), list(model.visible)
    again = data.draw(st.integers(0, len(news)))
    for entry in news[again:]:
        if not isinstance(entry, JobRow) or entry.seq < model.rows[entry.id].seq:
            model.apply(items([entry], [])[0])
    assert (model.rows, model.visible) == (rows, visible)


def test_what_runs_comes_first_then_what_waits_then_what_is_over_newest_first() -> None:
    def row(job: str, state: JobState, age: float, priority: int = 0) -> JobRow:
        return job_row(job, job, state=state, submitted_at=NOW - age, priority=priority)

    model = JobsModel(
        [
            row("old-failed", JobState.FAILED, 900),
            row("new-done", JobState.SUCCEEDED, 10),
            row("queued-first", JobState.QUEUED, 500),
            row("queued-last", JobState.QUEUED, 5),
            row("queued-urgent", JobState.QUEUED, 1, priority=9),
            row("waiting", JobState.AWAITING_APPROVAL, 1),
            row("cancelling", JobState.CANCELLING, 1),
            row("recovering", JobState.RECOVERING, 1),
            row("launching", JobState.LAUNCHING, 1),
            row("running-old", JobState.RUNNING, 999),
            row("running-new", JobState.RUNNING, 1),
        ]
    )
    assert model.visible == [
        "running-new", "running-old", "launching", "recovering", "cancelling",
        "queued-urgent", "queued-first", "queued-last", "waiting", "new-done", "old-failed",
    ]  # fmt: skip
    assert model.live == 9


def test_a_state_of_a_newer_service_is_kept_and_counts_as_live() -> None:
    model = JobsModel([job_row("a", "a", state="hibernating"), job_row("b", "b", state=JobState.SUCCEEDED)])
    assert model.visible == ["a", "b"]
    assert model.live == 1


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("LLAMA", ["l"]),
        ("run", ["l"]),
        ("sweep lr", ["s"]),
        ("ben queued", ["s"]),
        ("to approve", ["w"]),
        ("nothing at all", []),
        ("  ", ["l", "s", "w"]),
    ],
)
def test_the_filter_looks_through_name_state_model_tags_and_owner(words: str, found: list[str]) -> None:
    model = JobsModel(
        [
            job_row("l", "chat", state=JobState.RUNNING, model="meta/Llama-3"),
            job_row("s", "lr-3", state=JobState.QUEUED, tags=("sweep",), owner="slack:ben"),
            job_row("w", "big", state=JobState.AWAITING_APPROVAL),
        ]
    )
    model.set_filter(words)
    assert model.visible == found


def test_a_job_enters_and_leaves_the_filtered_list_as_it_changes() -> None:
    model = JobsModel([job_row("a", "a", state=JobState.QUEUED)])
    model.set_filter("running")
    assert model.visible == []
    assert model.apply(FeedItem(1, 0, (), (job_row("a", "a", state=JobState.RUNNING, seq=1),))).reordered
    assert model.visible == ["a"]
    assert model.apply(FeedItem(2, 0, (), (job_row("a", "a", state=JobState.SUCCEEDED, seq=2),))).reordered
    assert model.visible == []


def test_progress_repaints_one_row_and_moves_none() -> None:
    model = JobsModel([job_row(job, job, state=JobState.RUNNING) for job in IDS])
    before = model.visible
    change = model.apply(FeedItem(0, 5, (), (), {"bbb": Progress(3, 9, 1.0, rev=5), "unknown": Progress(rev=4)}))
    assert change.ids == {"bbb"}
    assert not change.reordered
    assert model.visible is before


def test_a_full_list_drops_deleted_jobs_and_keeps_what_is_newer() -> None:
    model = JobsModel([job_row("a", "a", state=JobState.RUNNING, seq=7), job_row("b", "b", seq=3)])
    model.replace([job_row("a", "a", state=JobState.QUEUED, seq=5)])
    assert model.visible == ["a"]
    assert model.rows["a"].state == JobState.RUNNING
    assert model.remove("a").reordered
    assert (model.visible, model.live, len(model)) == ([], 0, 0)


def test_a_deleted_job_leaves_with_its_event() -> None:
    model = JobsModel([job_row("a", "a", seq=7), job_row("b", "b", seq=3)])
    gone = Event(EventType.DELETED, "a", 9.0, "local:ann", seq=8)
    change = model.apply(FeedItem(cursor=8, rev=0, events=(gone,)))
    assert change.reordered
    assert "a" in change.ids
    assert (model.visible, model.cursor) == (["b"], 8)


def test_find_by_id_name_and_beginning() -> None:
    rows = [job_row("abc", "chat", submitted_at=1.0), job_row("abd", "chat", submitted_at=2.0), job_row("xyz", "docs")]
    model = JobsModel(rows)
    assert [model.find(name) for name in ("abc", "chat", "do", "ab", "", "none")] == [
        "abc",
        "abd",
        "xyz",
        None,
        None,
        None,
    ]

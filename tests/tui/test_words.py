"""What is said of events, log lines and jobs, however odd they are."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ainfinity.schema.event import Event, EventType
from ainfinity.schema.states import JobState
from ainfinity.schema.views import Progress, WorkerStatus
from tests.tui import scenes
from tests.tui.double import NOW, MemoryClient, job_row
from tui import format as fmt
from tui.columns import cost_text, header_line, layout, row_line
from tui.event_lines import event_lines
from tui.job_lines import detail_lines, header_lines, title_line
from tui.log_lines import LONGEST, keep, log_line
from tui.looks import LOOKS, row_look
from tui.narrate import tell
from tui.page import JobPage
from tui.questions import cancel_question, quit_words, retry_question
from tui.status import status_line
from tui.text import line_width, plain, width

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        "step",
        "loss",
        "message",
        "code",
        "answer",
        "prompt",
        "path",
        "eval_before",
        "total_steps",
        "world_size",
        "reason",
    ]
)
DATA = st.dictionaries(KEYS | st.text(max_size=6), JSON, max_size=6)
TYPES = st.sampled_from(list(EventType)) | st.text(max_size=12)


@given(TYPES, DATA | JSON)
def test_every_event_can_be_told(kind: str, data: Any) -> None:
    told = tell(Event(kind, "j", NOW, "local:ana", data=data))
    assert all(part.isprintable() for part in told)
    assert told.title


@settings(max_examples=40)
@given(st.lists(st.tuples(TYPES, DATA), max_size=12))
def test_a_page_takes_any_events(events: list[tuple[str, Any]]) -> None:
    page = JobPage(job_row("j", "name", state=JobState.FAILED, error_code="x", error_message="y"))
    page.take_events(Event(kind, "j", NOW, "worker:1", 1, data, seq) for seq, (kind, data) in enumerate(events, 1))
    lines = [*detail_lines(page, NOW, 70), *header_lines(page, NOW, 70, 6), *event_lines(page.events, NOW)]
    assert all(plain(line).isprintable() for line in lines)


def test_events_that_are_known_already_are_passed_over() -> None:
    page = JobPage()
    events = [
        Event(EventType.TRAINER_EVAL, "j", NOW, "w", 1, {"step": step, "loss": 2.0}, step + 1) for step in range(4)
    ]
    assert len(page.take_events(events[:3])) == 3
    assert page.take_events(events) == events[3:]
    assert page.held_out.xs == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", sorted({str(kind) for kind in EventType}))
def test_every_known_event_has_words_of_its_own(kind: str) -> None:
    assert tell(Event(kind, "j", NOW, "")).title != kind


@given(st.text(st.characters(codec=None)))
def test_every_log_line_is_drawn_printable(text: str) -> None:
    assert plain(log_line(keep(text))).isprintable()


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("  10%|█         | 1/10\r 100%|██████████| 10/10\r\n", " 100%|██████████| 10/10"),
        ("\x1b[31mERROR\x1b[0m boom", "ERROR boom"),
        ('{"ainfinity": 1, "kind": "step", "step": 3, "total_steps": 9, "loss": 2.5}', "step 3/9  loss 2.500"),
        ('{"ainfinity": 1, "kind": "step", "step": null, "loss": null}', "step –  loss –"),
        ('{"ainfinity": 1, "kind": "from the future", "x": 1}', "· trainer.from the future  x 1"),
        ('{"ainfinity": 1, "kind": 5}', '{"ainfinity": 1, "kind": 5}'),
        ('{"ainfinity": broken', '{"ainfinity": broken'),
    ],
)
def test_log_lines(raw: str, shown: str) -> None:
    assert plain(log_line(keep(raw))).rstrip() == shown


def test_a_line_of_ten_megabytes_is_cut_and_says_how_much_is_not_shown() -> None:
    begun = time.process_time()
    for text in ("x" * 10_000_000, "\x1b[" * 5_000_000, "漢" * 10_000_000):
        kept = keep(text)
        assert len(kept.text) == LONGEST
        assert plain(log_line(kept)).endswith(f"… and {10_000_000 - LONGEST:,} more characters")
    assert time.process_time() - begun < 2


@given(
    st.sampled_from([*LOOKS, "hibernating"]),
    st.text(st.characters(codec=None), max_size=80),
    st.integers(-1, 10**7),
    st.integers(-1, 10**7),
    st.none() | st.floats(),
    st.integers(1, 320),
    st.booleans(),
)
def test_rows_and_header_fit_at_any_width(
    state: str, text: str, step: int, total: int, number: float | None, cells: int, owners: bool
) -> None:
    progress = Progress(step, total, number, number, number, number, number, 1)
    row = job_row("j", text, state=state, model=text, owner=text, error_code=text, progress=progress)
    columns = layout(cells, owners=owners)
    assert line_width(header_line(columns)) <= cells + 1
    line = row_line(row, columns, NOW)
    assert line_width(line) == line_width(header_line(columns))
    assert plain(line).isprintable()
    page = JobPage(row)
    assert all(plain(line).isprintable() for line in [title_line(page, cells), *header_lines(page, NOW, cells, 6)])


def test_columns_go_in_order_of_importance() -> None:
    def names(cells: int, owners: bool = True) -> str:
        return " ".join(column.name for column in layout(cells, owners=owners))

    assert names(19) == "symbol name"
    assert names(40) == "symbol name percent eta loss"
    assert names(78) == "symbol state name model owner percent eta loss age"
    assert names(78, owners=False) == "symbol state name model bar percent eta loss age"
    assert names(98) == "symbol state name model owner bar percent eta loss age"


def test_a_failed_row_shows_why_where_others_show_how_far() -> None:
    columns = layout(98, owners=False)
    row = job_row("j", "n", state=JobState.FAILED, error_code="out_of_memory", progress=Progress(3, 9, 2.0))
    assert "out_of_memory" in plain(row_line(row, columns, NOW))


def test_the_eta_counts_down_between_two_reports() -> None:
    columns = layout(98, owners=False)
    progress = Progress(3, 9, 2.0, eta_seconds=90.0, updated_at=NOW)
    row = job_row("j", "n", state=JobState.RUNNING, progress=progress)
    assert "1m30s" in plain(row_line(row, columns, NOW))
    assert "1m15s" in plain(row_line(row, columns, NOW + 15))
    assert "   0s" in plain(row_line(row, columns, NOW + 900))


def test_the_status_line_says_in_words_what_fits_and_keeps_the_worker() -> None:
    counts = {JobState.RUNNING: 3, JobState.QUEUED: 12, JobState.SUCCEEDED: 9000, JobState.FAILED: 985}
    worker = WorkerStatus(True, "w", 1, NOW + 9, 15)

    def line(cells: int, status: WorkerStatus | None = worker) -> str:
        return plain(status_line(counts, visible=5, filtered=False, loading=False, worker=status, cells=cells))

    assert line(100).split("  ")[1:5] == ["10,000 jobs", "● 3 running", "○ 12 queued", "✗ 985 failed"]
    assert "● 3 running" in line(70)
    assert "✗ 985 failed" not in line(70)
    assert line(70).endswith("● worker ")
    assert all(line_width([(line(cells), "")]) <= max(cells, 24) for cells in range(1, 120))
    assert "no worker" in line(100, WorkerStatus(False, "", 0, 0, 2))
    assert "worker idle" in line(100, WorkerStatus(False, "", 0, 0, 0))


def test_a_finished_job_tells_what_it_brought(client: MemoryClient) -> None:
    scenes.add_demo(client, steps=16)
    scenes.finish_demo(client)
    page = JobPage(client.rows[scenes.DEMO])
    page.take_events(client.history)
    header = "\n".join(plain(line) for line in header_lines(page, NOW, 100, 6))
    assert "held-out loss 3.313 → 2.655  −0.658" in header
    details = [plain(line) for line in detail_lines(page, NOW, 100)]
    assert f" after  {scenes.AFTER}" in details
    assert " held-out loss 3.313 → 2.655" in details
    assert [sample.after for sample in page.samples] == [scenes.AFTER]
    assert page.checkpoint_step == 16


def test_a_failed_job_says_what_to_do() -> None:
    row = job_row("j", "n", state=JobState.FAILED, error_code="disk_full", error_message="No space left on /data.")
    page = JobPage(row)
    text = "\n".join(plain(line) for line in header_lines(page, NOW, 80, 8))
    assert "disk_full: No space left on /data." in text
    assert "Free some space" in text
    page.take_events([Event(EventType.TRAINER_FAILED, "j", NOW, "w", 1, {"hint": "Ask Ben to empty /data."}, 1)])
    assert page.fault is not None
    assert page.fault.hint == "Ask Ben to empty /data."


def test_questions_say_what_will_happen() -> None:
    running = job_row("j", "n", state=JobState.RUNNING, progress=Progress(40, 100))
    assert "step 40 of 100" in cancel_question(running).text
    assert "has not started" in cancel_question(job_row("j", "n")).text
    failed = job_row("j", "n", state=JobState.FAILED, attempt=2, error_code="killed", progress=Progress(40, 100))
    assert "attempt 3" in retry_question(failed).text
    assert "killed" in retry_question(failed).text
    assert quit_words(0) == ""
    assert quit_words(1).startswith("1 job goes on")
    assert quit_words(2).startswith("2 jobs go on")


def test_the_trainers_lines_are_what_the_scenes_write() -> None:
    line = json.loads(scenes.trainer_line(1, "step", step=1))
    assert (line["ainfinity"], line["kind"]) == (1, "step")


def test_costs_are_told_where_money_is_spent_and_unknown_ones_are_said_to_be() -> None:
    cloud = {"infra": "aws/us-east-1", "attempt": 1}
    assert cost_text(job_row("a", "a", state="running", infra="local", attempt=1, cost=0.0, price_per_hour=0.0)) == ""
    assert cost_text(job_row("b", "b", state="queued", infra="k8s", attempt=0, cost=0.0)) == ""
    assert cost_text(job_row("c", "c", state="running", **cloud, cost=3.0, price_per_hour=98.32)) == "$98.32/h"
    assert cost_text(job_row("d", "d", state="succeeded", **cloud, cost=3.07, price_per_hour=98.32)) == "$3.07"
    assert cost_text(job_row("e", "e", state="succeeded", **cloud, cost=None)) == "unknown"
    assert cost_text(job_row("f", "f", state="running", **cloud, cost=None)) == "unknown"
    amounts = (None, float("nan"), 0, 0.0004, 0.05, 3.074, 412.4, 12_345.0, 4_100_000.0)
    told = ["unknown", "unknown", "free", "<$0.001", "$0.05", "$3.07", "$412", "$12.3k", "$4.1M"]
    assert [fmt.money(each) for each in amounts] == told
    assert all(width(fmt.price(each)) <= 9 for each in amounts)


def test_a_kept_machine_and_a_job_that_stands_still_show() -> None:
    over = job_row("a", "a", state="running", infra="k8s", attempt=1, kept_until=NOW + 3600, price_per_hour=2.0)
    assert row_look(over).label == "kept"
    assert row_look(replace(over, kept_until=None)).label == "running"
    still = job_row("b", "b", state="running", infra="k8s", attempt=1, stuck_since=NOW - 1200)
    assert row_look(still).label == "stuck"
    assert row_look(replace(still, stale_since=NOW)).label == "no contact", "without contact nobody can tell"
    for row, words in ((over, "kept for 1h00m more, at $2.00/h"), (still, "for 20m00s")):
        shown = header_lines(JobPage(row), NOW, 100, 6)
        assert words in "\n".join("".join(text for text, _ in line) for line in shown)

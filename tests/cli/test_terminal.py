"""On a terminal: colours, questions, the progress line; and none of it elsewhere."""

from __future__ import annotations

from typing import Any

ESCAPE = "\x1b["


def test_colours_only_on_a_terminal_that_wants_them(cli: Any, in_terminal: Any, seed: Any) -> None:
    seed.running("alpha")
    assert ESCAPE in in_terminal("list").out
    assert ESCAPE not in in_terminal("list", NO_COLOR="1").out
    assert ESCAPE not in in_terminal("list", TERM="dumb").out
    assert ESCAPE not in cli("list").out


def test_a_narrow_terminal_cuts_the_last_column(in_terminal: Any, seed: Any) -> None:
    seed.running("alpha")
    lines = in_terminal("list", NO_COLOR="1", COLUMNS="60").out.splitlines()
    assert all(len(line) <= 62 for line in lines), lines
    assert "…" in lines[1]


def test_deleting_asks_and_takes_no_for_an_answer(in_terminal: Any, cli: Any, seed: Any) -> None:
    seed.over("failed", "alpha", code="x", message="y")
    no = in_terminal("delete", "alpha", answer="n\n", prompt="[y/N]")
    assert no.code == 3
    assert "Nothing was deleted" in no.out
    yes = in_terminal("delete", "alpha", answer="y\n", prompt="[y/N]")
    assert yes.code == 0
    assert cli("show", "alpha").code == 102


def test_launching_asks_when_someone_must_approve(in_terminal: Any, cli: Any, seed: Any) -> None:
    seed.home.job_file("careful", extra="policy: {approval: required}\n")
    later = in_terminal("launch", "careful.yaml", answer="n\n", prompt="[y/N]")
    assert later.code == 0
    assert "waits for approval" in later.out
    now = in_terminal("launch", "careful.yaml", "name=careful-2", answer="y\n", prompt="[y/N]")
    assert now.code == 0
    assert cli("show", "careful-2", "--json").json("show")["job"]["state"] == "queued"


def test_a_free_local_job_asks_nothing(in_terminal: Any, seed: Any) -> None:
    done = in_terminal("launch", "demo.yaml")
    assert done.code == 0
    assert "[y/N]" not in done.out


def test_a_secret_is_asked_for_without_echo(in_terminal: Any, home: Any) -> None:
    done = in_terminal("secrets", "set", "TOKEN", answer="canary-value\n", prompt="Value of TOKEN")
    assert done.code == 0
    assert "canary-value" not in done.out
    assert "canary-value" in (home.settings.config_dir / "secrets.json").read_text()


def test_without_a_command_the_screen_opens_on_the_jobs(in_terminal: Any, seed: Any) -> None:
    seed.running("alpha")
    done = in_terminal(answer="q", prompt="alpha", COLUMNS="100", LINES="30")
    assert done.code == 0, done.out[-2000:]
    assert "alpha" in done.out


def test_progress_is_rewritten_in_place(in_terminal: Any, seed: Any) -> None:
    seed.running("alpha")
    done = in_terminal("wait", "alpha", "--timeout", "0.2")
    assert done.code == 101
    assert "\ralpha  running  step 3/12 (25 %)" in done.out

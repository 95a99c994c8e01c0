"""Secrets, doctor, completion, and the worker's user service."""

from __future__ import annotations

import configparser
import os
import plistlib
import shutil
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ainfinity.cli import doctor_store
from ainfinity.cli import worker as worker_module
from ainfinity.store.doorbell import bell_folder


def checks(result: Any) -> dict[str, Any]:
    return {check["name"]: check for check in result.json("doctor")["checks"]}


def test_secrets_come_from_stdin_and_show_their_names(cli: Any, home: Any) -> None:
    stored = cli("secrets", "set", "HF_TOKEN", stdin="canary-value\n")
    assert stored.code == 0
    assert "canary-value" not in stored.out + stored.err
    assert cli("secrets", "list").out == "HF_TOKEN\n"
    assert cli("secrets", "list", "--json").json("secrets-list")["secrets"] == ["HF_TOKEN"]
    assert cli("secrets", "rm", "HF_TOKEN").code == 0
    assert "No secrets yet" in cli("secrets", "list").err


def test_doctor_on_a_machine_in_order(cli: Any, seed: Any) -> None:
    found = checks(cli("doctor", "--json"))
    assert found["database"]["status"] == "ok"
    assert found["trainer"]["status"] == "ok"
    assert found["worker"]["message"].startswith("alive")
    text = cli("doctor")
    assert text.out.count("\n") >= 14
    assert "All that jobs need is here" in text.err or text.code == 1


def test_doctor_fixes_what_is_safe(cli: Any, home: Any) -> None:
    cli("secrets", "set", "NAME", stdin="value")
    secrets = home.settings.config_dir / "secrets.json"
    secrets.chmod(0o644)
    bells = bell_folder(home.settings.sqlite_path)
    bells.mkdir(mode=0o700)
    try:
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        (bells / f"{ended.pid}-abc.sock").touch()
        cache = home.settings.cache_dir / "torch_extensions" / "deepspeed_shm_comm"
        cache.mkdir(parents=True)
        (cache / "lock").touch()
        found = checks(cli("doctor", "--json"))
        assert {found[name]["status"] for name in ("secrets", "doorbells", "build")} == {"failed", "warning"}
        fixed = checks(cli("doctor", "--fix", "--json"))
        assert all(fixed[name]["fixed"] for name in ("secrets", "doorbells", "build"))
        assert all(
            checks(cli("doctor", "--json"))[name]["status"] == "ok" for name in ("secrets", "doorbells", "build")
        )
        assert secrets.stat().st_mode & 0o777 == 0o600
    finally:
        shutil.rmtree(bells)


def test_doctor_leaves_a_living_build_alone(cli: Any, home: Any) -> None:
    cache = home.settings.cache_dir / "torch_extensions" / "deepspeed_shm_comm"
    cache.mkdir(parents=True)
    with (cache / "lock").open("w"):
        found = checks(cli("doctor", "--fix", "--json"))
        assert "running" in found["build"]["message"]
        assert (cache / "lock").exists()


def test_doctor_sees_a_damaged_database_and_dead_worker(cli: Any, home: Any, seed: Any) -> None:
    path = home.settings.sqlite_path
    seed.job("alpha")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE lease SET expires_at = 0")
    result = cli("doctor", "--json")
    assert result.code == 1
    assert checks(result)["worker"]["status"] == "failed"
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    assert checks(cli("doctor", "--json"))["database"]["status"] == "failed"
    seed.store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * 8192)
    assert checks(cli("doctor", "--json"))["database"]["status"] == "failed"


def test_doctor_tells_who_holds_a_lock(cli: Any, home: Any, seed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_store, "_PATIENCE", 0.1)
    seed.job("alpha")
    holder = sqlite3.connect(home.settings.sqlite_path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        message = checks(cli("doctor", "--json"))["database"]["message"]
    finally:
        holder.close()
    assert "is locked" in message
    assert f"pid {os.getpid()}" in message


def test_doctor_names_what_is_missing(cli: Any, home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    (home.path / "file").touch()
    monkeypatch.setenv("AINFINITY_DATA_DIR", str(home.path / "file" / "x"))
    result = cli("doctor", "--json")
    assert result.code == 1
    found = checks(result)
    assert "g++" in found["compiler"]["message"]
    assert "AINFINITY_DATA_DIR" in found["data"]["hint"]


def test_completion_scripts_are_valid_shell(cli: Any) -> None:
    for shell in ("bash", "zsh", "fish"):
        result = cli("completion", shell)
        assert result.code == 0
        assert "_AINFINITY_COMPLETE" in result.out
        if program := shutil.which(shell):
            subprocess.run([program, "-n"], input=result.out, text=True, check=True)


def test_completion_of_job_names_in_a_real_bash(cli: Any, home: Any, seed: Any, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    seed.job("demo-one")
    seed.job("demo-two")
    seed.job("other")
    command = tmp_path / "bin" / "ainfinity"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom ainfinity.cli.main import main\nmain()\n")
    command.chmod(0o755)
    script = cli("completion", "bash").out
    ask = (
        f"{script}\nCOMP_WORDS=(ainfinity show demo-)\nCOMP_CWORD=2\n"
        '$(complete -p ainfinity | sed "s/.*-F \\([^ ]*\\) .*/\\1/") ainfinity\nprintf "%s\\n" "${COMPREPLY[@]}"'
    )
    environment = home.environment | {"PATH": f"{command.parent}:{home.environment['PATH']}"}
    done = subprocess.run([bash, "--norc"], input=ask, capture_output=True, text=True, env=environment, check=True)
    assert set(done.stdout.split()) == {"demo-one", "demo-two"}, done.stderr


@pytest.mark.parametrize("words", ["ainfinity launch smol", "ainfinity list --state runn", "ainfinity secrets rm NA"])
def test_completion_of_other_words(home: Any, cli: Any, words: str) -> None:
    cli("secrets", "set", "NAME", stdin="value")
    asked = {"_AINFINITY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    assert home.process(**asked).out.split() != []


def test_completion_never_fails(home: Any) -> None:
    home.settings.data_dir.mkdir(parents=True)
    home.settings.sqlite_path.write_bytes(b"no database" * 500)
    asked = {"_AINFINITY_COMPLETE": "complete_bash", "COMP_WORDS": "ainfinity show x", "COMP_CWORD": "2"}
    done = home.process(**asked)
    assert done.out.split() == []
    assert done.err == ""


def test_the_systemd_unit_can_be_read_and_keeps_jobs_alive(
    cli: Any, home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home.path / "xdg"))
    monkeypatch.setenv("AINFINITY_TOKEN", "canary-value")
    monkeypatch.setenv("AINFINITY_NOTIFY_COMMAND", 'say "100%" $HOME \\')
    result = cli("worker", "install")
    assert result.code == 0
    assert "enable-linger" in result.err
    text = Path(result.out.strip()).read_text()
    assert "canary-value" not in text
    unit = configparser.RawConfigParser(strict=False)
    unit.read_string(text)
    assert unit["Service"]["KillMode"] == "process"
    assert unit["Service"]["ExecStart"] == f'"{sys.executable}" -m ainfinity.worker'
    assert 'Environment="AINFINITY_NOTIFY_COMMAND=say \\"100%%\\" $HOME \\\\"' in text
    if analyze := shutil.which("systemd-analyze"):
        done = subprocess.run([analyze, "--user", "verify", result.out.strip()], capture_output=True, text=True)
        assert "ainfinity.service" not in done.stderr, done.stderr


def test_the_launchd_plist_can_be_read(home: Any) -> None:
    found = plistlib.loads(worker_module._launchd(home.settings).encode())
    assert found["AbandonProcessGroup"] is True
    assert found["EnvironmentVariables"]["AINFINITY_DATA_DIR"] == str(home.settings.data_dir)


def test_a_worker_elsewhere_or_dead_is_not_killed(cli: Any, seed: Any) -> None:
    elsewhere = cli("worker", "stop", "--json")
    assert elsewhere.code == 3
    assert "elsewhere" in elsewhere.error()["message"]
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        holder = f"{socket.gethostname()}:{bystander.pid}:abc"
        with sqlite3.connect(seed.home.settings.sqlite_path) as connection:
            connection.execute("UPDATE lease SET holder = ?", (holder,))
        assert cli("worker", "stop").code == 3
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()

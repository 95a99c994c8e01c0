"""Secrets and their redaction."""

from __future__ import annotations

import json
import logging
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ainfinity.core import redact as redact_module
from ainfinity.core.exceptions import FolderUnwritable, InvalidFile, NotFound, Unreachable, UsageError
from ainfinity.core.logging import configure_logging
from ainfinity.core.redact import HIDDEN, find_secret, learn, learn_environment, redact
from ainfinity.core.secrets import SecretStore


class Ring:
    """A keyring in memory that can be locked."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.locked = False

    def _check(self) -> None:
        if self.locked:
            raise Unreachable("locked")

    def get(self, name: str) -> str | None:
        self._check()
        return self.values.get(name)

    def set(self, name: str, value: str) -> None:
        self._check()
        self.values[name] = value

    def delete(self, name: str) -> None:
        self._check()
        del self.values[name]


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test teach the redactor of another."""
    monkeypatch.setattr(redact_module, "_known", set())
    monkeypatch.setattr(redact_module, "_known_pattern", None)


def test_a_secret_is_kept_in_a_file_that_only_the_owner_reads(tmp_path: Path) -> None:
    store = SecretStore(tmp_path / "config")
    store.set("HF_TOKEN", "value-of-it")
    assert SecretStore(tmp_path / "config").get("HF_TOKEN") == "value-of-it"
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    store.set("A", "another one")
    assert store.names() == ["A", "HF_TOKEN"]
    store.remove("A")
    assert store.names() == ["HF_TOKEN"]
    assert [path.name for path in store.path.parent.iterdir() if "secrets-" in path.name] == []


def test_with_a_keyring_the_file_holds_names_only(tmp_path: Path) -> None:
    ring = Ring()
    store = SecretStore(tmp_path, ring)
    store.set("HF_TOKEN", "value-of-it")
    assert "value-of-it" not in store.path.read_text()
    assert store.get("HF_TOKEN") == "value-of-it"
    ring.locked = True
    with pytest.raises(Unreachable):
        store.get("HF_TOKEN")
    with pytest.raises(Unreachable, match="cannot be read from here"):
        SecretStore(tmp_path).get("HF_TOKEN")
    ring.locked = False
    store.remove("HF_TOKEN")
    assert ring.values == {}
    assert store.names() == []


@pytest.mark.parametrize(
    "name", ["", "A-B", "1A", "A B", "A\n", "PATH", "LD_PRELOAD", "PYTHONPATH", "AINFINITY_TOKEN", "x" * 200]
)
def test_names_that_are_no_variable_or_a_dangerous_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        SecretStore(tmp_path).set(name, "value")


@pytest.mark.parametrize("value", ["", "a\0b", "x" * 40_000])
def test_values_that_no_environment_can_hold(tmp_path: Path, value: str) -> None:
    with pytest.raises(UsageError):
        SecretStore(tmp_path).set("NAME", value)


def test_a_missing_secret_says_how_to_store_it(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        SecretStore(tmp_path).resolve(["HF_TOKEN"])
    assert "ainfinity secrets set HF_TOKEN" in caught.value.hint
    with pytest.raises(NotFound):
        SecretStore(tmp_path).remove("HF_TOKEN")


def test_a_damaged_file_and_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text("{")
    with pytest.raises(InvalidFile):
        SecretStore(tmp_path).names()
    (tmp_path / "file").touch()
    with pytest.raises(FolderUnwritable):
        SecretStore(tmp_path / "file" / "below").set("NAME", "value")


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from ainfinity.core.secrets import SecretStore\n"
        "store = SecretStore(pathlib.Path(sys.argv[1]))\n"
        "[store.set(f'{sys.argv[2]}_{n}', 'value') for n in range(20)]"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), who]) for who in ("A", "B", "C")]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(SecretStore(tmp_path).names()) == 60


LOOKS = [
    "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
    "sk-proj-abcdefghijklmnop1234",
    "xoxb-1234567890-abcdefgh",
    "xapp-1-A0000-1234567890",
    "AKIAABCDEFGHIJKLMNOP",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "glpat-abcdefghijklmnopqrst",
    "AIzaSyAbcdefghijklmnopqrstuvwxyz0123456",
]


@pytest.mark.parametrize("secret", LOOKS)
def test_what_looks_like_a_secret_is_hidden_and_named(secret: str) -> None:
    assert redact(f"before {secret} after") == f"before {HIDDEN} after"
    assert find_secret(f"x={secret}")
    assert secret not in find_secret(secret)


def test_passwords_in_urls_and_keys_are_hidden() -> None:
    assert redact("git clone https://me:pa55@host/x") == f"git clone https://{HIDDEN}@host/x"
    assert redact("https://t0ken@host/x") == f"https://{HIDDEN}@host/x"
    assert redact("postgresql+psycopg://u:p@db/x") == f"postgresql+psycopg://{HIDDEN}@db/x"
    assert redact("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----") == HIDDEN
    assert redact("Authorization: Bearer abcdefghijklmnopqrst") == f"Authorization: Bearer {HIDDEN}"


@pytest.mark.parametrize(
    "text",
    [
        "ssh://git@host/x",
        "https://host/a@b",
        "hf_hub_download",
        "task-force",
        "disk-1234567890",
        "me@host",
        "https://host:80/x",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert redact(text) == text
    assert find_secret(text) == ""


def test_known_values_are_hidden_whatever_they_look_like(tmp_path: Path) -> None:
    assert redact("the plain words") == "the plain words"
    learn(["plain words", "short"])
    assert redact("the plain words, short") == f"the {HIDDEN}, short"
    SecretStore(tmp_path).set("NAME", "line one of it\nline two of it")
    assert redact("x line two of it") == f"x {HIDDEN}"


def test_the_environment_teaches_by_the_names_of_variables() -> None:
    learn_environment({"MY_API_KEY": "canary-value-1", "EDITOR": "canary-value-2", "SSH_KEY_PATH": "/home/me/keys"})
    assert redact("canary-value-1 canary-value-2 /home/me/keys") == f"{HIDDEN} canary-value-2 /home/me/keys"


def test_logs_hide_secrets_in_messages_arguments_and_tracebacks(tmp_path: Path) -> None:
    file = tmp_path / "logs" / "worker.log"
    configure_logging("debug", file=file)
    log = logging.getLogger("ainfinity.test")
    log.info("token %s", LOOKS[0])
    try:
        raise ValueError(LOOKS[1])
    except ValueError:
        log.exception("failed")
    logging.getLogger("somebody.else").info("not shown")
    logging.shutdown()
    text = file.read_text()
    assert "token [hidden]" in text
    assert "Traceback" in text
    assert LOOKS[0] not in text
    assert LOOKS[1] not in text
    assert "not shown" not in text
    configure_logging("warning")


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(UsageError, match="DEBUG, INFO"):
        configure_logging("loud")


@given(st.text(max_size=200), st.sampled_from(LOOKS))
def test_redaction_is_stable_and_complete(text: str, secret: str) -> None:
    once = redact(f"{text} {secret}")
    assert secret not in once
    assert redact(once) == once
    json.dumps(once)

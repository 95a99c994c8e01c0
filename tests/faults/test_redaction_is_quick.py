"""No text that a trainer prints may hold up whoever hides its secrets."""

from __future__ import annotations

import time

import pytest

from ainfinity.core.redact import HIDDEN, redact

PIECES = {
    "key begins": "-----BEGIN PRIVATE KEY-----\n",
    "key dashes": "-----BEGIN PRIVATE KEY-----\n-----\n",
    "key ends": "-----END PRIVATE KEY-----\n",
    "key words": "-----BEGIN AAAA ",
    "urls": "http://a:",
    "slashes": "://",
    "colons": "://a:b",
    "at": "://a:b@",
    "bearer": "Bearer ",
    "tokens": "hf_aaaaaaaaaaaaaaaa",
    "slack": "xoxb-",
    "one word": "m",
}


def seconds(text: str) -> float:
    began = time.process_time()
    redact(text)
    return time.process_time() - began


@pytest.mark.parametrize("piece", PIECES.values(), ids=PIECES)
def test_time_grows_with_the_text_and_no_faster(piece: str) -> None:
    text = piece * (60_000 // len(piece))
    small, large = min(seconds(text) for _ in range(3)), seconds(text * 8)
    assert large < max(8 * 4 * small, 0.2), f"{small:.4f} s, and for 8 times as much {large:.4f} s"


@pytest.mark.parametrize(
    "key",
    [
        "-----BEGIN PRIVATE KEY-----\nabc-def\n-----END PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nabc==\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----\n-----half\n-----END OPENSSH PRIVATE KEY-----",
    ],
)
def test_keys_are_hidden_whole(key: str) -> None:
    assert redact(f"a {key} b {key} c") == f"a {HIDDEN} b {HIDDEN} c"

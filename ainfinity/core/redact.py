"""Keep secrets out of logs, messages and outputs.

Two nets: what a secret looks like (published token formats, URL userinfo), and the values that this process has learnt
(stored secrets it read, tokens in its environment). `redact` is cheap enough to run on every line.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote

HIDDEN: Final = "[hidden]"
#: Shorter values are words, and hiding them would garble the text without protecting anything.
MIN_LENGTH: Final = 8

#: What well-known secrets look like: a name for people, and a pattern. Boundaries keep them out of the midst of words.
_LOOKS: Final[tuple[tuple[str, str], ...]] = (
    ("a Hugging Face token", r"\bhf_[A-Za-z0-9]{12,}"),
    ("an API key", r"\bsk-[A-Za-z0-9_-]{16,}"),
    ("a Slack token", r"\bx(?:ox[a-z]|app|wfp)-[A-Za-z0-9-]{8,}"),
    ("an AWS key", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    ("a GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})"),
    ("a GitLab token", r"\bglpat-[A-Za-z0-9_-]{16,}"),
    ("a Google key", r"\bAIza[A-Za-z0-9_-]{30,}"),
    ("a bearer token", r"(?<=[Bb]earer )[A-Za-z0-9._~+/-]{16,}=*"),
    # Up to the next BEGIN only: a text full of them would else be searched to its end from each.
    (
        "a private key",
        r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:(?:[^-]|-(?!----BEGIN ))*?-----END [A-Z ]{0,40}PRIVATE KEY-----)?",
    ),
    # A lone user name before the @ is a password only for http; ssh://git@host is an everyday address.
    (
        "a password in a URL",
        r"(?<=://)[^\s/@:'\"]*:[^\s/@'\"]+(?=@)|(?<=http://)[^\s/@'\"]+(?=@)|(?<=https://)[^\s/@'\"]+(?=@)",
    ),
)
_ANY_LOOK: Final = re.compile("|".join(f"(?:{pattern})" for _, pattern in _LOOKS))
#: Each look holds one of these. To find that none is there takes a hundredth of the time that the patterns take.
_HINTS: Final = (
    "://", "hf_", "sk-", "xox", "xapp-", "xwfp-", "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_",
    "glpat-", "AIza", "earer ", "-----BEGIN ",
)  # fmt: skip
_SECRET_VARIABLE: Final = re.compile(r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|KEY|CREDENTIALS?|APIKEY)(?:_|$)")
#: Variables that match the pattern above and hold no secret.
_PUBLIC: Final = frozenset({"SSH_AUTH_SOCK", "GPG_KEY"})

_lock = threading.Lock()
_known: set[str] = set()
_known_pattern: re.Pattern[str] | None = None


def learn(values: Iterable[str]) -> None:
    """Have `redact` hide these values from now on, for the life of the process."""
    global _known_pattern
    with _lock:
        # Of a multi-line secret each line is hidden, because text reaches the redactor line by line.
        lines = {line.strip() for value in values for line in (value, *value.splitlines())}
        fresh = {form for line in lines if len(line) >= MIN_LENGTH for form in _forms(line)} - _known
        if fresh:
            _known.update(fresh)
            longest_first = sorted(_known, key=len, reverse=True)
            _known_pattern = re.compile("|".join(map(re.escape, longest_first)))


def _forms(text: str) -> set[str]:
    """A value as it is, and as it stands in JSON, in Python's repr and in a URL."""
    quoted = {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1]}
    return {text, quote(text, safe=""), quote(text)} | quoted


def learn_environment(environment: Mapping[str, str] | None = None) -> None:
    """Learn the values of all variables whose names say that they are secret."""
    environment = os.environ if environment is None else environment
    learn(
        value
        for name, value in environment.items()
        if _SECRET_VARIABLE.search(name.upper()) and name not in _PUBLIC and not value.startswith("/")
    )


def redact(text: str) -> str:
    """Return `text` with every known value and everything that looks like a secret replaced by `[hidden]`."""
    if _known_pattern is not None:
        text = _known_pattern.sub(HIDDEN, text)
    return _ANY_LOOK.sub(HIDDEN, text) if any(hint in text for hint in _HINTS) else text


def find_secret(text: str) -> str:
    """Return what kind of secret `text` holds, in words, or "" for none. The secret itself is never in the answer."""
    if _known_pattern is not None and _known_pattern.search(text):
        return "the value of a known secret"
    if not _ANY_LOOK.search(text):
        return ""
    return next(kind for kind, pattern in _LOOKS if re.search(pattern, text))

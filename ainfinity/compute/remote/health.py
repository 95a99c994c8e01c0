"""Is SkyPilot's API server there? Asked over plain HTTP, without loading SkyPilot, which would cost seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

from ainfinity.compute.remote.rows import Health, SkyRefused
from ainfinity.core.exceptions import ComputeUnreachable
from ainfinity.core.redact import redact

_PORT: Final = "46580"
_PATIENCE: Final = 10.0
_LOG: Final = "Look at ~/.sky/api_server/server.log."
_LOCAL: Final = frozenset({"127.0.0.1", "localhost", "0.0.0.0", "::", "::1"})  # noqa: S104  # names, not a bind


def find_endpoint(environment: Mapping[str, str] | None = None) -> str:
    """Return the API server's address as SkyPilot finds it: from the environment, its settings, or this machine."""
    environment = os.environ if environment is None else environment
    found = environment.get("SKYPILOT_API_SERVER_ENDPOINT") or _setting("endpoint")
    return (found or f"http://127.0.0.1:{_local_port(environment)}").rstrip("/")


def is_local(endpoint: str) -> bool:
    """Whether it is the address of the server that SkyPilot would start on this machine."""
    parts = urlsplit(endpoint)
    return parts.scheme == "http" and parts.hostname in _LOCAL and str(parts.port) == _local_port(os.environ)


def ask_health(endpoint: str, limit: float) -> Health:
    """Ask the server how it is, for at most `limit` seconds."""
    local = is_local(endpoint)
    shown = redact(endpoint)
    if urlsplit(endpoint).scheme not in ("http", "https"):
        return Health(
            shown, local, f"{shown} is no address of an API server.", "Set SKYPILOT_API_SERVER_ENDPOINT right."
        )
    request = urllib.request.Request(f"{endpoint}/api/health", headers=_headers())
    try:
        with urllib.request.urlopen(request, timeout=limit) as response:
            said = json.loads(response.read(1 << 20))
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return Health(shown, local, f"{shown} wants a login.", f"Run `sky api login -e {shown}`.")
        return Health(shown, local, f"{shown} answers {error.code}.", "Wait, or see its log.")
    except TimeoutError:
        return Health(shown, local, f"{shown} did not answer within {limit:.0f} s.", "Wait, or see its log.")
    except ValueError:
        return Health(shown, local, f"{shown} is no SkyPilot API server.", "Set SKYPILOT_API_SERVER_ENDPOINT right.")
    except OSError as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            return Health(shown, local, f"{shown} did not answer within {limit:.0f} s.", "Wait, or see its log.")
        hint = (
            "Start it with `ainfinity sky start`." if local else "Check SKYPILOT_API_SERVER_ENDPOINT and the network."
        )
        text = getattr(reason, "strerror", None) or str(reason)
        return Health(shown, local, f"No API server answers at {shown}: {text}.", hint, reachable=False)
    return _read(shown, local, said)


def start_local(limit: float) -> Health:
    """Start SkyPilot's API server on this machine, and return how it is.

    Errors:
        SkyRefused: the address set is another one. ComputeUnreachable: it did not come up within `limit` seconds.
    """
    health = ask_health(find_endpoint(), _PATIENCE)
    if health.reachable:
        return health
    if not health.local:
        raise SkyRefused(
            f"SkyPilot's API server is set to {health.endpoint}, which is not on this machine.",
            hint="Unset SKYPILOT_API_SERVER_ENDPOINT, or start it there.",
        )
    command = [sys.executable, "-c", "import sys, sky.client.cli.command as c; sys.exit(c.cli())", "api", "start"]
    environment = os.environ | {"SKYPILOT_DISABLE_USAGE_COLLECTION": "1", "PYTHONSAFEPATH": "1"}
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        raise ComputeUnreachable(f"SkyPilot's API server did not start within {limit:.0f} s.", hint=_LOG) from None
    health = ask_health(find_endpoint(), _PATIENCE)
    if health.problem:
        said = redact((done.stderr or done.stdout).strip()[-300:])
        raise ComputeUnreachable(f"SkyPilot's API server did not start: {said}", hint=_LOG)
    return health


def _read(shown: str, local: bool, said: Any) -> Health:
    if not isinstance(said, dict) or "status" not in said:
        return Health(shown, local, f"{shown} is no SkyPilot API server.", "Set SKYPILOT_API_SERVER_ENDPOINT right.")
    found = cast("dict[str, Any]", said)
    status, version = str(found["status"]), str(found.get("version") or "")
    user: Any = found.get("user")
    name = str(cast("dict[str, Any]", user).get("name", "")) if isinstance(user, dict) else ""
    problem, hint = "", ""
    if status == "needs_auth":
        problem, hint = f"{shown} wants a login.", f"Run `sky api login -e {shown}`."
    elif status != "healthy":
        problem, hint = f"{shown} says that it is {status}.", "Wait, or see its log."
    return Health(shown, local, problem, hint, version=version, user=name)


def _headers() -> dict[str, str]:
    token = os.environ.get("SKYPILOT_SERVICE_ACCOUNT_TOKEN") or _setting("service_account_token")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _local_port(environment: Mapping[str, str]) -> str:
    return environment.get("SKYPILOT_API_SERVER_LOCAL_PORT") or _PORT


def _setting(key: str) -> str:
    """A setting of the API server in SkyPilot's own file; "" where there is none."""
    import yaml

    path = os.environ.get("SKYPILOT_GLOBAL_CONFIG") or "~/.sky/config.yaml"
    try:
        found: Any = yaml.safe_load(Path(path).expanduser().read_text())
    except (OSError, yaml.YAMLError):
        return ""
    section: Any = cast("dict[str, Any]", found).get("api_server") if isinstance(found, dict) else None
    return str(cast("dict[str, Any]", section).get(key) or "") if isinstance(section, dict) else ""

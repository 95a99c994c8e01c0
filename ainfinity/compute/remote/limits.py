"""Time limits for SkyPilot's own HTTP client, which mostly has none.

Put beneath its session: each request gets what is left of the call's time, and an answer that says nothing, or none,
becomes ours at once, where the client would go on trying for minutes.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

from ainfinity.compute.remote.rows import RequestLost
from ainfinity.core.exceptions import ComputeUnreachable
from ainfinity.core.redact import redact

_CONNECT: Final = 5.0
_NO_TIME: Final = 0.05
_NUMBER: Final = re.compile(r"^\[Errno -?\d+\] ")


class Limits:
    """What time the calling thread has left."""

    def __init__(self) -> None:
        self._own = threading.local()

    @contextmanager
    def set(self, whole: float | None, each: float | None = None) -> Generator[None]:
        """Give what is done within so many seconds in all, and for each request."""
        before = getattr(self._own, "limit", None)
        self._own.limit = (None if whole is None else time.monotonic() + whole, each)
        try:
            yield
        finally:
            self._own.limit = before

    def left(self) -> float | None:
        """Return how many seconds the next request may take; None without a limit."""
        until, each = getattr(self._own, "limit", None) or (None, None)
        left = None if until is None else max(_NO_TIME, until - time.monotonic())
        return min((value for value in (left, each) if value is not None), default=None)


def limited_adapter(limits: Limits) -> Any:
    """Return an adapter for a session of `requests` that keeps the limits."""
    import requests
    from requests.adapters import HTTPAdapter

    class LimitedAdapter(HTTPAdapter):
        """Keeps the limits, and tells no answer from an answer."""

        def send(self, request: Any, *arguments: Any, **named: Any) -> Any:
            left = limits.left()
            if left is not None:
                named["timeout"] = (min(_CONNECT, left), left)
            try:
                response = super().send(request, *arguments, **named)
            except requests.exceptions.Timeout:
                waited = "in time" if left is None else f"within {left:.0f} s"
                raise ComputeUnreachable(f"SkyPilot's API server did not answer {waited}.") from None
            except requests.exceptions.ConnectionError as error:
                raise ComputeUnreachable(
                    f"SkyPilot's API server cannot be reached: {_cause(error)}.",
                    hint="Is it running? See `ainfinity doctor`.",
                ) from None
            return _check(request, response)

    return LimitedAdapter(pool_connections=50, pool_maxsize=256, max_retries=0)


def _check(request: Any, response: Any) -> Any:
    """Pass on answers only; `/api/get` answers 500 where what was asked for failed."""
    status: int = response.status_code
    is_result = "/api/get" in request.url
    if is_result and status == 404:
        response.close()
        raise RequestLost("SkyPilot's API server no longer knows a request that it took: it was restarted.")
    if status > 500 or (status == 500 and not is_result):
        response.close()
        raise ComputeUnreachable(f"SkyPilot's API server answered {status}.", hint="It is asked again.")
    return response


def _cause(error: BaseException) -> str:
    """The innermost reason in words: `Connection refused`, and not the chain of classes around it."""
    inner: Any = error
    while reason := (getattr(inner, "reason", None) or next((one for one in inner.args if _is_error(one)), None)):
        inner = reason
    text = getattr(inner, "strerror", None) or str(inner).rpartition(": ")[2] or type(inner).__name__
    return redact(_NUMBER.sub("", str(text))).rstrip(".")


def _is_error(value: Any) -> bool:
    return isinstance(value, BaseException)

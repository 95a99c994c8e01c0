"""One command's way to the service: settings, logging, a client, and what to say if Ctrl-C is pressed meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from ainfinity.core.config import Settings, load_settings
from ainfinity.core.exceptions import AinfinityError

if TYPE_CHECKING:
    from ainfinity.client.port import Client

T = TypeVar("T")

#: What Ctrl-C leaves behind, in words; a command that changes something keeps this true as it goes.
interruption = ""


def on_interrupt(text: str) -> None:
    """Say from now on what pressing Ctrl-C means for the job at hand."""
    global interruption
    interruption = text


def settings_with_logging() -> Settings:
    """Read the settings and send log records to stderr: warnings, or what AINFINITY_LOG_LEVEL asks for."""
    from ainfinity.core.logging import configure_logging

    settings = load_settings()
    configure_logging(settings.log_level if os.environ.get("AINFINITY_LOG_LEVEL") else "WARNING")
    return settings


def learn_secrets() -> None:
    """Have everything hidden that this user keeps secret: the tokens of the environment, and what is stored."""
    from ainfinity.core.redact import learn_environment
    from ainfinity.core.secrets import SecretStore

    learn_environment()
    with suppress(AinfinityError):  # a job that needs a secret meets the fault again, and says so
        SecretStore(load_settings().config_dir).learn_all()


def with_client(body: Callable[[Client], Awaitable[T]], *, start_workers: bool = True) -> T:
    """Open a client, run `body` with it, and close it. With `start_workers` it sees to it that live jobs have one."""
    settings = settings_with_logging()

    async def run() -> T:
        from ainfinity.client.connect import open_client

        client = await open_client(settings, start_workers=start_workers)
        try:
            return await body(client)
        finally:
            await client.close()

    return asyncio.run(run())

"""`ainfinity gpus`: what accelerators can be had, where, at what price, and how many are free."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ainfinity.cli.output import age, money, number, say, write_json, write_table
from ainfinity.cli.session import on_interrupt, with_client
from ainfinity.core.constants import EXIT_OK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ainfinity.schema.machines import GpuOffer

_HEAD = ("GPUS", "WHERE", "REGION", "GPU GIB", "$/H", "SPOT $/H", "FREE", "MACHINE")


def list_gpus(name: str, infra: str, *, refresh: bool, as_json: bool) -> int:
    """Write what can be had. Errors: UsageError, ComputeUnreachable if SkyPilot does not answer and never did."""
    on_interrupt("Stopped asking.")
    found = with_client(lambda client: client.gpus(name, infra=infra, refresh=refresh), start_workers=False)
    if as_json:
        write_json(found)
        return EXIT_OK
    if found.offers:
        write_table(_HEAD, [_row(offer) for offer in found.offers], right=(3, 4, 5, 6))
    elif name or infra:
        say("Nothing fits. `ainfinity gpus` shows all.")
    else:
        say("No infrastructure with accelerators is set up in SkyPilot. `sky check` tells what is missing.")
    tell_age(found.at, found.error)
    return EXIT_OK


def _row(offer: GpuOffer) -> tuple[str, ...]:
    free = "-" if offer.free is None else str(offer.free) if offer.total is None else f"{offer.free}/{offer.total}"
    return (
        f"{offer.name}:{offer.count:g}",
        offer.infra,
        offer.region or "-",
        number(offer.gpu_memory),
        money(offer.price_per_hour).lstrip("$"),
        "-" if offer.spot_price_per_hour is None else money(offer.spot_price_per_hour).lstrip("$"),
        free,
        offer.instance or "-",
    )


def tell_age(at: float, error: Mapping[str, str]) -> None:
    """Say how old an answer is, and why there is no newer one."""
    say(f"As of {age(at)}." + ("" if error else " --refresh asks anew."))
    if error:
        say(f"No newer answer: {error.get('message', '')} {error.get('hint', '')}".rstrip())

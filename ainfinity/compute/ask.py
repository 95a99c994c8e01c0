"""`python -m ainfinity.compute.ask QUESTION`: one answer of SkyPilot's, from a process that ends within its limit.

Arguments come as a JSON object on standard input; `{"value": …}` or `{"error": …}` goes to standard output as JSON.
Fronts ask through this, because loading `sky` takes seconds and memory, and a call that hangs must hang nobody else.
An API server is never started, but by the question `start`, which is asked only for a person who said so.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, TextIO, cast

from ainfinity.compute.remote.rows import ClusterRow, GivenRow, GpuRow, ManagedRow
from ainfinity.compute.skypilot import SkyPilot
from ainfinity.core.config import load_settings
from ainfinity.core.constants import EXIT_OK
from ainfinity.core.exceptions import AinfinityError, ComputeUnreachable, Internal, NotFound, UsageError
from ainfinity.core.logging import configure_logging
from ainfinity.core.redact import redact
from ainfinity.core.utils import make_folder

#: Seconds that an answer may take unless `--limit` says otherwise.
LIMIT: Final = 60.0
#: The share of the limit in which the server must say that it is well: some is left to say that it is not.
_HEALTH_SHARE: Final = 0.5
#: Managed jobs in these states cost nothing any more.
_OVER: Final = frozenset({"SUCCEEDED", "CANCELLED"})
#: What any installation of ours calls its machines.
_OURS: Final = re.compile(r"ain-[0-9a-f]{8}-.+")

Arguments = Mapping[str, Any]


def health(sky: SkyPilot, arguments: Arguments, limit: float) -> Any:
    """How the API server is; that it does not answer is an answer."""
    return asdict(sky.health(limit * _HEALTH_SHARE))


def start(sky: SkyPilot, arguments: Arguments, limit: float) -> Any:
    """Start the API server of this machine, and say how it is then."""
    return asdict(sky.start_local(limit))


def gpus(sky: SkyPilot, arguments: Arguments, limit: float) -> Any:
    """What accelerators can be had and what is free now, of one name or all: `gpus`, `free` and `problems`."""
    name = str(arguments.get("name", ""))
    infras = sky.infrastructures()
    clouds = [infra for infra in infras if "/" not in infra]
    offers: list[GpuRow] = []
    problems: list[str] = []
    for one in [clouds, *([infra] for infra in infras if "/" in infra)]:
        try:
            offers += _offers(sky, one, name)
        except ComputeUnreachable as error:  # one cluster that does not answer hides no other
            problems.append(f"{', '.join(one)}: {error.message}")
    if problems and not offers:
        raise ComputeUnreachable(" ".join(problems), hint="`sky check` tells more.")
    free = sky.free_gpus([infra.partition("/")[0] for infra in infras], name)
    return {"gpus": [asdict(row) for row in offers], "free": [asdict(row) for row in free], "problems": problems}


def _offers(sky: SkyPilot, infras: Sequence[str], name: str) -> list[GpuRow]:
    """What some clouds offer, or one cluster of one's own, whose rows bear its name."""
    if len(infras) != 1 or "/" not in infras[0]:
        return sky.accelerators(infras, name)
    kind, _, cluster = infras[0].partition("/")
    infra = f"{'k8s' if kind == 'kubernetes' else kind}/{cluster}"
    rows = sky.accelerators([kind], name, region=cluster)
    # Slurm marks its default partition with a star.
    return [replace(row, infra=infra, region=row.region.rstrip("*").replace(cluster, "")) for row in rows]


def price(sky: SkyPilot, arguments: Arguments, limit: float) -> Any:
    """Where the task `task` could run, what SkyPilot would take first, with dollars an hour for all its nodes."""
    return [asdict(row) for row in sky.candidates(arguments["task"])]


def orphans(sky: SkyPilot, arguments: Arguments, limit: float) -> Any:
    """All machines whose names begin with `prefix`, whoever owns them."""
    prefix = str(arguments["prefix"])
    return [
        {**entry, "backend": "skypilot"}
        for entry in _machines(sky, lambda name: name.startswith(prefix))
        if entry["status"] != "STOPPED"
    ]


def adoptable(sky: SkyPilot, arguments: Arguments, limit: float) -> Any:
    """All clusters and managed jobs that no installation of ours started, and those of `prefix`."""
    prefix = str(arguments.get("prefix", ""))
    return _machines(sky, lambda name: not _OURS.fullmatch(name) or bool(prefix and name.startswith(prefix)))


def ssh(sky: SkyPilot, arguments: Arguments, limit: float) -> Any:
    """The way into node `node` of the attempt `name`: `config`, a file for `ssh -F`, and `host`."""
    name, node = str(arguments["name"]), int(arguments.get("node", 0))
    cluster = _cluster_of(sky, name)
    text = sky.ssh_config(cluster)
    hosts = re.findall(r"^Host (\S+)", text, re.MULTILINE)
    host = cluster if node == 0 else f"{cluster}-worker{node}"
    if host not in hosts:
        raise NotFound(f"{name} has no node {node}.", hint=f"It has {len(hosts)}, the first of them 0.", field="node")
    folder = make_folder(load_settings().cache_dir / "ssh")
    return {"config": _write(folder / cluster, text), "host": host}


QUESTIONS: Final[Mapping[str, Callable[[SkyPilot, Arguments, float], Any]]] = {
    "health": health,
    "start": start,
    "gpus": gpus,
    "price": price,
    "orphans": orphans,
    "adoptable": adoptable,
    "ssh": ssh,
}
#: What is asked whether or not the server is well.
_ANY_HEALTH: Final = frozenset({"health", "start"})


def _machines(sky: SkyPilot, wanted: Callable[[str], bool]) -> list[dict[str, Any]]:
    """Clusters and managed jobs of such names that may still cost something, as entries."""
    clusters = [row for row in sky.clusters() if not row.is_managed and wanted(row.name)]
    jobs = [row for row in sky.managed_jobs() if not _is_over(row) and wanted(row.name)]
    given = sky.given([row.name for row in clusters] + [row.cluster for row in jobs if row.cluster])
    entries = [_cluster_entry(row, given.get(row.name)) for row in clusters]
    return entries + [_managed_entry(row, given.get(row.cluster)) for row in jobs]


def _is_over(row: ManagedRow) -> bool:
    return row.is_done or row.status in _OVER or (row.status.startswith("FAILED") and row.ended_at is not None)


def _cluster_entry(row: ClusterRow, given: GivenRow | None) -> dict[str, Any]:
    price = row.price_per_hour if given is None else given.price_per_hour
    return _entry("cluster", row.name, row, price, row.launched_at)


def _managed_entry(row: ManagedRow, given: GivenRow | None) -> dict[str, Any]:
    price = row.price_per_hour if given is None else given.price_per_hour
    return _entry("managed", str(row.id), row, price, row.started_at or row.submitted_at)


def _entry(
    kind: str, ident: str, row: ClusterRow | ManagedRow, price: float | None, launched_at: float | None
) -> dict[str, Any]:
    return {
        "kind": kind,
        "ident": ident,
        "name": row.name,
        "status": row.status,
        "given": row.given,
        "infra": row.infra,
        "launched_at": launched_at,
        "price_per_hour": price,
    }


def _cluster_of(sky: SkyPilot, name: str) -> str:
    """The cluster that an attempt, also an adopted one, runs on."""
    kind, _, ident = name.partition("@")[0].partition(":")
    if kind == "cluster":
        return ident
    jobs = sky.managed_jobs(ids=[int(ident)]) if kind == "managed" else []
    if not jobs and not sky.clusters([name]):
        jobs = [row for row in sky.managed_jobs(name=name) if row.name == name]
    found = [row.cluster for row in jobs if row.cluster]
    return found[-1] if found else name


def _write(path: Path, text: str) -> str:
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    aside.touch(mode=0o600)
    aside.write_text(text)
    aside.replace(path)
    return str(path)


class _Reply:
    """The one answer of this process, from whichever thread has it first."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def give(self, reply: Mapping[str, Any], code: int) -> None:
        """Write it and end the process, whatever threads and exit hooks of libraries want."""
        with self._lock:
            self._out.write(json.dumps(reply) + "\n")
            self._out.flush()
            os._exit(code)

    def fail(self, error: AinfinityError) -> None:
        """Answer with an error."""
        self.give({"error": {key: redact(value) for key, value in error.as_dict().items()}}, error.exit_code)


def answer(question: str, arguments: Arguments, limit: float) -> Any:
    """Answer one question. Errors: AinfinityError."""
    sky = SkyPilot()
    if question not in _ANY_HEALTH:
        found = sky.health(limit * _HEALTH_SHARE)
        if found.problem:
            raise ComputeUnreachable(found.problem, hint=found.hint)
    return QUESTIONS[question](sky, arguments, limit)


def main(words: Sequence[str] | None = None) -> None:
    """Answer and end the process."""
    parser = argparse.ArgumentParser(prog="python -m ainfinity.compute.ask", description="Ask SkyPilot something.")
    parser.add_argument("question", choices=sorted(QUESTIONS))
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds that it may take")
    options = parser.parse_args(words)
    reply = _Reply(_take_stdout())
    late = ComputeUnreachable(
        f"SkyPilot did not answer within {options.limit:.0f} s.", hint="Try again; `ainfinity sky status` tells more."
    )
    watch = threading.Timer(options.limit, reply.fail, [late])
    watch.daemon = True
    watch.start()
    try:
        configure_logging("WARNING")
        reply.give({"value": answer(options.question, _arguments(sys.stdin), options.limit)}, EXIT_OK)
    except AinfinityError as error:
        reply.fail(error)
    except Exception as error:  # noqa: BLE001  # the asker gets words, whatever a new SkyPilot does
        reply.fail(Internal(f"Asking SkyPilot for {options.question!r} failed: {error!r}."))


def _arguments(source: Iterable[str]) -> Arguments:
    text = "".join(source)
    try:
        found: Any = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise UsageError(f"The arguments are no JSON: {error}.") from None
    if not isinstance(found, dict):
        raise UsageError("The arguments must be a JSON object.")
    return cast("dict[str, Any]", found)


def _take_stdout() -> TextIO:
    """Keep standard output for the answer; what libraries print goes to standard error."""
    sys.stdout.flush()
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return kept


if __name__ == "__main__":
    main()

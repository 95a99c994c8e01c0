"""What nobody here launched: an orphan is found and removed, another installation's is not, plain sky's is adopted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.slurm.desk import Desk
from tests.e2e.slurm.loopback import PATIENCE, wait_for

OTHER = "ain-00000000-abcdefghij-a1"
ASLEEP = "for i in $(seq 1 3000); do echo line $i; sleep 1; done"


@contextmanager
def plain(desk: Desk, *names: str, run: str = ASLEEP) -> Generator[None]:
    """Clusters that plain `sky launch` made, taken down in the end, whoever should have done so."""
    task = desk.root / "plain.yaml"
    task.write_text(f"resources: {{infra: slurm/loopback, cpus: 1, memory: 1}}\nrun: {json.dumps(run)}\n")
    try:
        for name in names:
            desk.loopback.sky("launch", "-y", "-d", "-c", name, str(task))
        yield
    finally:
        desk.loopback.sky("down", "-y", *names, check=False)


def notices(desk: Desk) -> dict[str, dict[str, Any]]:
    """The notices of the file, by event."""
    file = desk.settings.data_dir / "notices.jsonl"
    lines = map(json.loads, file.read_text().splitlines()) if file.exists() else ()
    return {line["event"]: line for line in lines}


def ask(desk: Desk, question: str, given: dict[str, Any]) -> Any:
    """The value that the process that asks SkyPilot answers with."""
    done = subprocess.run(
        [sys.executable, "-m", "ainfinity.compute.ask", question],
        input=json.dumps(given),
        env=desk.environment(),
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return json.loads(done.stdout)["value"]


def test_an_orphan_is_found_told_and_removed_and_another_installations_is_left_alone(desk: Desk) -> None:
    orphan = f"{desk.mine}-abcdefghij-a1"
    with plain(desk, orphan, OTHER):
        found = desk.ask("orphans", "--refresh")
        assert [row["name"] for row in found["rows"]] == [orphan]
        assert found["rows"][0]["leaked"] > 0
        wait_for(lambda: "orphan.found" in notices(desk), "the owner to be asked")
        told = notices(desk)["orphan.found"]
        assert (told["orphan"], told["price_per_hour"]) == (orphan, found["rows"][0]["price_per_hour"])
        assert "ainfinity orphans" in told["message"]
        desk.run("orphans", "remove", orphan)
        wait_for(lambda: "orphan.removed" in notices(desk), "it to be removed")
        assert desk.loopback.clusters("ain-") == [OTHER]
        assert desk.ask("orphans")["rows"] == []


def test_what_plain_sky_started_is_shown_and_ended_only_once_it_is_claimed(desk: Desk) -> None:
    name = f"plain-{desk.installation}"
    with plain(desk, name):
        job = desk.run("adopt", "--cluster", name).stdout.split()[-1]
        assert desk.until(job, "running").price_per_hour
        wait_for(lambda: "line 2" in desk.run("logs", job).stdout, "its log")
        assert "--claim" in desk.run("cancel", job, code=3).stderr
        assert name in desk.loopback.clusters(name)
        desk.run("adopt", "--cluster", name, "--claim")
        desk.run("cancel", job)
        assert desk.until(job, "cancelled").cost
        assert desk.loopback.clusters(name) == []


def test_what_is_there_and_what_it_costs_is_asked_of_skypilot(desk: Desk) -> None:
    offers = {row["count"]: row for row in desk.ask("gpus", "H100")["offers"]}
    assert set(offers) == {1, 2, 4, 8}
    assert offers[8]["infra"] == "slurm/loopback"
    assert offers[8]["price_per_hour"] == 8 * offers[1]["price_per_hour"]
    task = {
        "num_nodes": 2,
        "resources": {"any_of": [{"infra": "slurm", "accelerators": "H100:8"}, {"infra": "slurm", "cpus": 1}]},
        "run": "true",
    }
    cheap, dear = ask(desk, "price", {"task": task})
    assert dear["price_per_hour"] == 2 * offers[8]["price_per_hour"]
    assert cheap["price_per_hour"] < dear["price_per_hour"]
    assert dear["given"] == "2x H100:8 slurm/loopback"

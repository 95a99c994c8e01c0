"""Asks SkyPilot itself about tasks, in a process and a home of its own: its reader, and its optimizer over a seeded
catalogue. Tasks come as JSON on standard input, answers go to standard output; argv[1] is the home.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

COLUMNS = ("InstanceType", "AcceleratorName", "AcceleratorCount", "vCPUs", "MemoryGiB", "GpuInfo", "Price")
#: cloud, region, instance, GPU, count, CPUs, GiB, $/h, $/h spot
OFFERS: list[tuple[str, str, str, str, int, int, int, float, float]] = [
    ("aws", "us-east-1", "p4d.24xlarge", "A100", 8, 96, 1152, 32.77, 9.8),
    ("aws", "us-west-2", "p4d.24xlarge", "A100", 8, 96, 1152, 33.5, 8.25),
    ("aws", "us-east-1", "p5.48xlarge", "H100", 8, 192, 2048, 98.32, 40.0),
    ("gcp", "us-central1", "a2-highgpu-8g", "A100", 8, 96, 680, 29.39, 14.0),
    ("gcp", "us-central1", "a3-highgpu-8g", "H100", 8, 208, 1872, 88.49, 30.0),
    ("aws", "us-east-1", "m6i.2xlarge", "", 0, 8, 32, 0.384, 0.1),
    ("aws", "us-east-1", "m6i.4xlarge", "", 0, 16, 64, 0.768, 0.2),
    ("gcp", "us-central1", "n2-standard-8", "", 0, 8, 32, 0.3885, 0.09),
]


def seed_catalogue(folder: Path) -> None:
    """Write what SkyPilot would else download."""
    for cloud in ("aws", "gcp"):
        rows: list[list[Any]] = []
        for where, region, instance, gpu, count, cpus, memory, price, spot in OFFERS:
            if where == cloud:
                info = "{'Gpus': []}" if gpu else ""
                zone = f"{region}{'a' if cloud == 'aws' else '-a'}"
                place = [region, zone, "x86_64"]
                if cloud == "gcp" and gpu:  # which prices a machine and its accelerators apart
                    rows.append(["", gpu, count, "", "", info, price * 0.75, spot * 0.75, *place])
                    rows.append([instance, "", "", cpus, memory, "", price * 0.25, spot * 0.25, *place])
                else:
                    rows.append([instance, gpu, count or "", cpus, memory, info, price, spot, *place])
        write(folder / cloud / "vms.csv", [*COLUMNS, "SpotPrice", "Region", "AvailabilityZone", "Arch"], rows)
    write(folder / "common" / "accelerators.csv", ["AcceleratorName", "Clouds"], [["A100", ""], ["H100", ""]])
    write(folder / "common" / "metadata.csv", ["GPU", "MemoryGB", "Manufacturer"], [["A100", 40, "NVIDIA"]])


def write(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def read(sky: Any, config: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    try:
        task = sky.Task.from_yaml_config(config)
    except Exception as error:
        return None, {"error": str(error)}
    first = next(iter(task.resources))
    autostop = first.autostop_config
    return task, {
        "name": task.name,
        "nodes": task.num_nodes,
        "envs": task.envs,
        "mounts": task.file_mounts,
        "buckets": {path: [store.source, store.mode.value] for path, store in task.storage_mounts.items()},
        "secrets": [ref.name for ref in task._managed_secret_refs],
        "run": task.run,
        "setup": task.setup,
        "accelerators": first.accelerators,
        "infra": first.infra.to_str(),
        "spot": first.use_spot,
        "recovery": first.job_recovery,
        "autodown": autostop.idle_minutes if autostop and autostop.enabled and autostop.down else None,
    }


def optimize(sky: Any, task: Any) -> dict[str, Any]:
    dag = sky.Dag()
    dag.add(task)
    table = io.StringIO()
    listener = logging.StreamHandler(table)
    logging.getLogger("sky").addHandler(listener)
    sky.Optimizer.optimize(dag, quiet=False)
    logging.getLogger("sky").removeHandler(listener)
    best = task.best_resources
    price = round(best.get_cost(3600) * task.num_nodes, 2)
    found = {"infra": f"{str(best.cloud).lower()}/{best.region}", "instance": best.instance_type, "price": price}
    return {**found, "table": table.getvalue()}


def main() -> None:
    home, wanted = Path(sys.argv[1]), json.load(sys.stdin)
    os.environ |= {"HOME": str(home), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    answer, sys.stdout = sys.stdout, sys.stderr  # SkyPilot prints

    import sky
    from sky import check, global_user_state, skypilot_config
    from sky.clouds.cloud import CloudCapability
    from sky.skylet import constants

    seed_catalogue(home / ".sky" / "catalogs" / constants.CATALOG_SCHEMA_VERSION)
    workspace = skypilot_config.get_active_workspace()
    global_user_state.set_allowed_clouds(check._get_workspace_allowed_clouds(workspace), workspace)
    global_user_state.set_enabled_clouds(["AWS", "GCP"], CloudCapability.COMPUTE, workspace)
    answers: dict[str, Any] = {}
    for name, config in wanted["read"].items():
        answers[name] = read(sky, config)[1]
    for name, config in wanted["optimize"].items():
        answers[name] = optimize(sky, read(sky, config)[0])
    json.dump(answers, answer)


if __name__ == "__main__":
    main()

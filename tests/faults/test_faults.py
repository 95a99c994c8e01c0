"""What can go wrong around us: each fault has a message that helps and an exit code, and nothing is lost by it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ainfinity.client.connect import open_client
from ainfinity.client.local import LocalClient
from ainfinity.core.config import Settings
from ainfinity.core.exceptions import (
    AinfinityError,
    DatabaseBroken,
    DatabaseLocked,
    DatabaseNewer,
    DataInvalid,
    FolderUnwritable,
    InvalidSpec,
)
from ainfinity.schema import job_file
from ainfinity.schema.actor import Actor
from ainfinity.schema.states import JobState
from ainfinity.schema.views import JobQuery
from ainfinity.store.store import open_store
from tests.engine.workshop import PATIENCE, Workshop, shop_settings, wait_for
from tests.services.workplace import ADMIN, Workplace


def check(error: AinfinityError, code: str, exit_code: int) -> None:
    assert (error.code, error.exit_code) == (code, exit_code)
    assert error.message.endswith(".")
    assert error.hint, "what to do next?"
    assert len(str(error)) < 600


def run_worker(shop: Workshop, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ainfinity.worker", "--until-idle"],
        env=shop.environment() | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def check_worker(done: subprocess.CompletedProcess[str], words: str, log: Path | None = None) -> None:
    assert done.returncode == 4
    assert words in done.stderr
    assert "Traceback" not in done.stderr + (log.read_text() if log else "")


# --- the job ------------------------------------------------------------


@pytest.mark.parametrize(("key", "value"), [("model", "./no-such-model"), ("data", "no-such.jsonl"), ("data", ".")])
def test_a_model_or_file_that_is_not_there(shop: Workshop, key: str, value: str) -> None:
    path = shop.root / "job.yaml"
    recipe = {"model": "org/model", "data": str(shop.data)} | {key: value}
    path.write_text("name: x\nrecipe:\n" + "".join(f"  {name}: {text}\n" for name, text in recipe.items()))
    with pytest.raises(InvalidSpec) as caught:
        job_file.load(str(path))
    assert caught.value.exit_code == 2
    assert f"{path}:" in caught.value.message
    assert caught.value.field == f"recipe.{key}"


@pytest.mark.parametrize("content", ["", '{"messages": [\n'], ids=["empty", "malformed"])
async def test_data_that_cannot_be_used(shop: Workshop, content: str) -> None:
    client = LocalClient(open_store(shop.settings), shop.settings, Actor("local:ann"), start_workers=False)
    shop.data.write_text(content)
    with pytest.raises(DataInvalid) as caught:
        await client.submit(shop.spec(), "key")
    check(caught.value, "data_invalid", 2)
    assert str(shop.data) in caught.value.message
    assert await client.list_jobs(JobQuery()) == []
    await client.close()


def test_a_trainer_that_finds_no_model_says_so_in_the_job(shop: Workshop) -> None:
    said = "code='model_not_found', message='There is no model org/mdl.', hint='Did you mean org/model?'"
    job = shop.submit(script=f"say('failed', {said}, rank=0)\nsys.exit(1)\n", policy__retries=3)
    with shop.engine() as engine:
        engine.until(job, "failed")
    row = shop.row(job)
    assert (row.error_code, row.attempt) == ("model_not_found", 1)
    assert "There is no model org/mdl" in row.error_message
    assert "Did you mean org/model?" in row.error_message


# --- folders ------------------------------------------------------------


def unwritable(root: Path) -> list[Path]:
    """Folders that even root cannot make: below a file, and in a file system of the kernel's own."""
    (root / "file").touch()
    return [root / "file" / "data", Path("/proc/ainfinity")]


async def test_an_unwritable_data_folder(shop: Workshop) -> None:
    for folder in unwritable(shop.root):
        settings = Settings(data_dir=folder, config_dir=shop.root / "config")
        with pytest.raises(FolderUnwritable) as caught:
            await open_client(settings)
        check(caught.value, "folder_unwritable", 4)
        assert str(folder) in caught.value.message
        assert "AINFINITY_DATA_DIR" in caught.value.hint
        check_worker(run_worker(shop, AINFINITY_DATA_DIR=str(folder)), "AINFINITY_DATA_DIR")


def test_an_attempts_folder_that_cannot_be_made_fails_the_job_with_its_reason(shop: Workshop) -> None:
    shop.settings.jobs_dir.write_text("a file is in the way")
    job = shop.submit()
    with shop.engine() as engine:
        engine.until(job, "failed")
        assert shop.row(job).error_code == "folder_unwritable"
        assert "AINFINITY_DATA_DIR" in shop.row(job).error_message
        shop.settings.jobs_dir.unlink()
        shop.service.retry_job(job, ADMIN)
        assert engine.until(job, "failed", "succeeded") == "succeeded"


def test_a_place_for_notices_that_cannot_be_written_is_tried_again(shop: Workshop) -> None:
    file = shop.settings.data_dir / "notices.jsonl"
    file.mkdir()
    job = shop.submit()
    with shop.engine() as engine:
        engine.until(job, "succeeded")
        engine.tick(3)
        file.rmdir()
        shop.clock.move(5)
        engine.fence.renew()
        engine.tick(2)
    assert file.read_text().count('"job.succeeded"') == 1


FULL_DISK = """
import os, sys
from pathlib import Path
sys.path.insert(0, os.getcwd())
from ainfinity.core.exceptions import AinfinityError
from tests.engine.workshop import shop_settings
from tests.services.workplace import ADMIN, Workplace
disk, elsewhere = Path(sys.argv[1]), Path(sys.argv[2])
ballast = disk / "ballast"
ballast.write_bytes(b"x" * 200_000)
settings = shop_settings(disk)
settings.data_dir.mkdir()
work = Workplace(elsewhere, settings)
kept = []
try:
    while True:
        kept.append(work.launch(f"job-{len(kept)}", note="n" * 2000).id)
except AinfinityError as error:
    print(error.code, error.exit_code, bool(error.hint), "full" in error.message)
assert len(kept) > 3
assert {row.id for row in work.service.list_jobs()} >= set(kept[-50:])  # what was told is kept, and can be read
ballast.unlink()
kept.append(work.launch("after").id)
assert work.check_fold() == len(kept)
with work.store.read() as connection:
    print(connection.exec_driver_sql("PRAGMA integrity_check").scalar_one())
"""


def in_small_disk(tmp_path: Path, size: str, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in a mount namespace of its own, in which `tmp_path/disk` is a tiny disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o size={size} none "$0" || exit 77; exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, str(disk), *command],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
    )
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip(f"FULL DISK NOT TESTED: no file system can be mounted here: {done.stderr.strip()[:200]}")
    return done


@pytest.fixture
def mounting() -> None:
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("FULL DISK NOT TESTED: mounting a tiny disk takes root and unshare")


@pytest.mark.usefixtures("mounting")
def test_a_full_disk_refuses_the_next_job_and_loses_none(tmp_path: Path) -> None:
    done = in_small_disk(tmp_path, "1m", [sys.executable, "-c", FULL_DISK, str(tmp_path / "disk"), str(tmp_path)])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["folder_unwritable 4 True True", "ok"]


@pytest.mark.usefixtures("mounting")
def test_a_worker_on_a_full_disk_fails_the_job_with_its_reason(tmp_path: Path) -> None:
    """An attempt needs some room; a disk of 8 MB is too full for any."""
    done = in_small_disk(tmp_path, "8m", [sys.executable, "-c", FULL_WORKER, str(tmp_path / "disk"), str(tmp_path)])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("failed folder_unwritable")
    assert "Free some room" in done.stdout
    assert "Traceback" not in done.stderr


FULL_WORKER = """
import os, sys
from pathlib import Path
sys.path.insert(0, os.getcwd())
from tests.engine.workshop import Workshop, shop_settings
settings = shop_settings(Path(sys.argv[1]))
settings.data_dir.mkdir()
shop = Workshop(Path(sys.argv[2]), settings)
job = shop.submit()
assert shop.start_worker().wait(60) == 0
row = shop.row(job)
print(row.state, row.error_code, row.error_message)
"""


# --- the database ------------------------------------------------------------

LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def locker(shop: Workshop) -> subprocess.Popen[str]:
    """Another process that holds the database locked until it reads a line."""
    path = str(shop.settings.data_dir / "ainfinity.db")
    process = subprocess.Popen(
        [sys.executable, "-c", LOCKER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    shop.workers.append(process.pid)
    return process


def unlock(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=PATIENCE)


def test_a_locked_database_can_be_read_and_is_written_later(shop: Workshop, locker: subprocess.Popen[str]) -> None:
    hasty = Workplace(shop.root, shop_settings(shop.root, busy_timeout=0.1))
    with pytest.raises(DatabaseLocked) as caught:
        hasty.launch()
    check(caught.value, "database_locked", 4)
    assert hasty.service.list_jobs() == []
    unlock(locker)
    assert hasty.launch().state == "queued"
    hasty.store.close()


def test_a_worker_waits_out_a_locked_database(shop: Workshop) -> None:
    job = shop.submit(script="start()\nwait('end')\nfinish()\n")
    worker = shop.start_worker(AINFINITY_BUSY_TIMEOUT="0.2", AINFINITY_LEASE="60")
    wait_for(lambda: shop.row(job).state == "running")
    shop.reached("first", "end")
    path = shop.settings.data_dir / "ainfinity.db"
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute("BEGIN IMMEDIATE")
    shop.go("first", "end")
    log = shop.settings.data_dir / "worker.log"
    wait_for(lambda: "trying again" in log.read_text(), "the worker to notice")
    assert worker.poll() is None
    connection.execute("ROLLBACK")
    connection.close()
    wait_for(lambda: shop.row(job).state == "succeeded")
    assert worker.wait(PATIENCE) == 0
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("damage", ["no database", "cut short", "overwritten within"])
def test_a_damaged_database(shop: Workshop, damage: str) -> None:
    for number in range(30):
        shop.in_state(JobState.FAILED, f"job-{number}")
    shop.store.close()
    path = shop.settings.data_dir / "ainfinity.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    content = bytearray(path.read_bytes())
    match damage:
        case "no database":
            content = bytearray(b"this is no database" * 1000)
        case "cut short":
            del content[len(content) // 3 :]
        case _:
            content[4096 * 2 :] = b"\x55" * (len(content) - 4096 * 2)
    path.write_bytes(content)
    with pytest.raises(DatabaseBroken) as caught:
        use(shop)
    check(caught.value, "database_broken", 4)
    assert "backup" in caught.value.hint
    assert path.read_bytes() == bytes(content)
    check_worker(run_worker(shop), "damaged", shop.settings.data_dir / "worker.log")


def use(shop: Workshop) -> None:
    """What any front does first."""
    store = open_store(shop.settings)
    try:
        service = type(shop.service)(store)
        for row in service.list_jobs():
            service.get_job_status(row.id)
        service.launch_job(shop.spec("another"), "another", ADMIN)
    finally:
        store.close()


def test_a_newer_database_is_refused_and_left_as_it_is(shop: Workshop) -> None:
    path = shop.settings.data_dir / "ainfinity.db"
    shop.submit()
    with shop.store.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    shop.store.close()
    before = path.read_bytes()
    with pytest.raises(DatabaseNewer) as caught:
        use(shop)
    check(caught.value, "database_newer", 4)
    check_worker(run_worker(shop), "newer", shop.settings.data_dir / "worker.log")
    assert path.read_bytes() == before

"""A canary goes in wherever a secret can, and is then looked for wherever something is kept or shown."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ainfinity.client.connect import Session
from ainfinity.core.exceptions import AinfinityError, InvalidSpec
from ainfinity.core.redact import HIDDEN
from ainfinity.core.secrets import open_secrets
from ainfinity.schema import job_file
from ainfinity.schema.training_job import JobSpec
from ainfinity.services.changes import ChangeService
from ainfinity.store.sqlite import reading
from skylaunch.render import Launch, render_task, render_yaml
from tests.engine.workshop import Workshop, wait_for
from tests.services.workplace import ADMIN

#: In the environment of front and worker, and so of the trainer.
ENVIRONMENT = {
    "HF_TOKEN": "hf_canaryAAAAbbbbCCCCddddEEEEffff",
    "WANDB_API_KEY": "canary-wandb-0123456789",
    "SLACK_BOT_TOKEN": "xoxb-canary-1234567890-abcdef",
    "DB_PASSWORD": "canary-pass-éß-0123",
}
#: Ours, which the trainer does not get.
OURS = {"AINFINITY_TOKEN": "canary-ainfinity-token-77"}
#: Stored, and named by the job.
STORED = {
    "MY_SECRET": "canary-stored-5566778899",
    "ODD_SECRET": 'canary "odd" \\ back\\slash é',
    "PEM": "-----canary begin-----\ncanarylineone0001\ncanarylinetwo0002\n-----canary end-----",
}
EVERY = {**ENVIRONMENT, **OURS, **STORED}

SCRIPT = r"""
import json
values = [os.environ[name] for name in NAMES]
write("ours: " + os.environ.get("AINFINITY_TOKEN", "none") + "\n")
start(note=values)
for value in values:
    write(f"plain {value}\n")
    write(f"repr {value!r}\r")
    write(json.dumps({"token": value}) + "\n" + json.dumps({"token": value}, ensure_ascii=False) + "\n")
    write(f"https://user:{value}@example.org/x?key={value}\n")
    say("warning", code=value, message=f"cannot log in with {value}", **{value: 1})
    say("sample", step=1, prompt=value, answer=[value])
    write(f"two {value[:len(value) // 2]}")
    write(f"{value[len(value) // 2:]} pieces\n")
    write("x" * 1_100_000 + value + "y" * 50_000 + "\n")
step(1)
checkpoint(4)
wait("half")
for value in values:
    say("warning", code="late", message=f"after another worker came: {value}")
    sys.stderr.write(f"Traceback (most recent call last):\nValueError: bad key {value!r}\n")
sys.stderr.flush()
say("failed", code="internal", message="gave up: " + " ".join(values), hint=values[0], rank=0)
write("no end " + values[0])
sys.exit(1)
"""


def leaks(text: str | bytes, values: Iterable[str]) -> list[str]:
    """The secrets that can be read in a text: as they are, line by line, and as JSON writes them."""
    data = text.encode() if isinstance(text, str) else text
    found: list[str] = []
    for value in values:
        forms = {line for line in value.splitlines() if len(line) >= 8} | {value}
        forms |= {json.dumps(form)[1:-1] for form in forms} | {
            json.dumps(form, ensure_ascii=False)[1:-1] for form in forms
        }
        found += [form for form in forms if form.encode() in data]
    return found


def files(shop: Workshop) -> list[Path]:
    """All that is kept, but for the store of secrets itself."""
    folders = (shop.settings.data_dir, shop.settings.config_dir)
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [path for path in found if path != shop.settings.config_dir / "secrets.json"]


def check_files(shop: Workshop, values: Iterable[str]) -> None:
    found = {str(path.relative_to(shop.root)): leaks(path.read_bytes(), values) for path in files(shop)}
    assert {path: leak for path, leak in found.items() if leak} == {}
    with reading(shop.settings.data_dir / "ainfinity.db") as connection:
        assert connection is not None
        assert leaks("\n".join(connection.iterdump()), values) == []


@pytest.fixture
def planted(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A workshop with the canary in the environment and among the stored secrets."""
    for name, value in {**shop.environment(), **ENVIRONMENT, **OURS}.items():
        monkeypatch.setenv(name, value)
    out = shop.settings.data_dir / "told-by-command.jsonl"
    monkeypatch.setenv("AINFINITY_NOTIFY_COMMAND", f"cat >> {out}")
    stored = open_secrets(shop.settings)
    for name, value in STORED.items():
        stored.set(name, value)
    return shop


def job_text(shop: Workshop, **changes: Any) -> Path:
    """Write a job file; JSON is YAML too."""
    names = [*ENVIRONMENT, *STORED]
    spec = shop.scripted("leaky", f"NAMES = {names!r}\n{SCRIPT}").as_json()
    recipe = {key: spec["recipe"][key] for key in ("model", "data")}
    document = {"name": "leaky", "recipe": recipe, "resources": {"python": str(shop.python)}, "secrets": list(STORED)}
    path = shop.root / "leaky.json"
    path.write_text(json.dumps(document | changes))
    return path


def test_a_trainer_that_prints_every_secret(planted: Workshop) -> None:
    from ainfinity.core.config import load_settings

    shop = planted
    with Session(load_settings()) as session:
        job = session.launch(job_text(shop)).id
        shop.reached("leaky", "half")
        wait_for(lambda: shop.row(job).progress.step == 1, "the first lines")
        # A worker that never launched the attempt has not learnt its secrets.
        first = int(ChangeService(shop.store).worker().holder.split(":")[1])
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: not ChangeService(shop.store).worker().alive, "the lease to run out")
        shop.start_worker(AINFINITY_NOTIFY_COMMAND=os.environ["AINFINITY_NOTIFY_COMMAND"])
        shop.go("leaky", "half")
        done = session.wait(job, timeout=60)
        assert done.state == "failed"
        wait_for(lambda: not ChangeService(shop.store).worker().alive, "the notices to be told")
        shown = [
            repr(session.list()), repr(session.get(job)), repr(list(session.logs(job))), repr(session.metrics(job)),
            repr(shop.events(job)), json.dumps([asdict(event) for event in shop.events(job)]),
            (shop.settings.data_dir / "notices.jsonl").read_text(), done.error_message,
            (shop.settings.data_dir / "told-by-command.jsonl").read_text(),
            *(Path(path).read_text() for path in session.pull(job, "logs", shop.root / "out")),
        ]  # fmt: skip
    for text in shown:
        assert leaks(text, EVERY.values()) == []
    check_files(shop, EVERY.values())
    # The lines came, with the secrets hidden: this test can fail.
    log = shop.log(job).read_text()
    assert "ours: none" in log
    assert log.count(f"plain {HIDDEN}") == len(ENVIRONMENT) + len(STORED)
    assert f"two {HIDDEN} pieces" in log
    assert HIDDEN in done.error_message
    warnings = [event for event in shop.events(job) if event.type == "trainer.warning"]
    assert len(warnings) == 2 * (len(ENVIRONMENT) + len(STORED))


async def test_uncommitted_changes_are_kept_without_their_secrets(
    planted: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ainfinity.client.connect import open_client
    from ainfinity.core.config import load_settings

    folder = planted.root / "checkout"
    folder.mkdir()
    monkeypatch.chdir(folder)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    (folder / "train.py").write_text("token = ''\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True, cwd=folder)
    (folder / "train.py").write_text("".join(f"token = {value!r}\n" for value in EVERY.values()))
    client = await open_client(load_settings(), start_workers=False)
    row = await client.submit(planted.spec(), "key")
    origin = (await client.get_job(row.id)).provenance
    await client.close()
    diff = Path(origin["diff_file"]).read_text()
    assert origin["dirty"] is True
    assert diff.count(f"token = '{HIDDEN}'") >= len(EVERY) - 1  # the private key stands on one line of its own kind
    assert leaks(diff + repr(origin), EVERY.values()) == []
    check_files(planted, EVERY.values())


def test_control_the_search_finds_what_it_should(planted: Workshop) -> None:
    for name, value in EVERY.items():
        assert leaks(f"{name}={value}", EVERY.values())
        assert leaks(json.dumps({name: value}), EVERY.values())
    assert leaks(b"..canarylinetwo0002..", EVERY.values())
    check_files(planted, EVERY.values())
    (planted.settings.data_dir / "planted.txt").write_text(STORED["MY_SECRET"])
    with pytest.raises(AssertionError):
        check_files(planted, EVERY.values())


#: One that looks like a secret, and one that is only known to be one.
BOTH_KINDS = ("HF_TOKEN", "WANDB_API_KEY")


@pytest.mark.parametrize(
    ("way", "name"),
    [("note", name) for name in EVERY]
    + [(way, name) for way in ("override", "tag", "model", "prompt") for name in BOTH_KINDS],
)
def test_a_job_that_holds_a_secret_is_refused_without_repeating_it(planted: Workshop, way: str, name: str) -> None:
    from ainfinity.core.config import load_settings

    value = EVERY[name]
    overrides: list[str] = []
    path = job_text(planted)
    match way:
        case "note":
            path = job_text(planted, note=f"log in with {value}")
        case "override":
            overrides = [f"note=log in with {value}"]
        case "tag":
            overrides = [f"tags={json.dumps([value])}"]
        case "model":
            overrides = [f"recipe.model={value}"]
        case _:
            overrides = [f"recipe.sample_prompts={json.dumps([value])}"]
    with Session(load_settings()) as session, pytest.raises(AinfinityError) as caught:
        session.launch(path, *overrides)
    assert caught.value.exit_code == 2
    assert leaks(f"{caught.value} {caught.value.as_dict()}", EVERY.values()) == []
    check_files(planted, EVERY.values())


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("note", "see https://ann:canary-userinfo-1@example.org/x"),
        ("recipe.model", "https://ann:canary-userinfo-1@example.org/model"),
        ("recipe.data", "https://canary-userinfo-1@example.org/data.jsonl"),
        ("resources.image", "docker:ann:canary-userinfo-1@example.org/image"),
    ],
)
def test_a_password_in_a_url_is_refused_without_repeating_it(planted: Workshop, key: str, text: str) -> None:
    with pytest.raises(AinfinityError) as caught:
        job_file.load(str(job_text(planted)), [f"{key}={text}"])
    assert leaks(f"{caught.value} {caught.value.as_dict()}", ["canary-userinfo-1"]) == []


def test_the_service_refuses_what_came_past_the_file(planted: Workshop) -> None:
    """A front that builds its spec itself, as a script or a server may, is held to the same."""
    from ainfinity.core.redact import learn

    learn([STORED["MY_SECRET"]])
    for text in (STORED["MY_SECRET"], ENVIRONMENT["HF_TOKEN"], "https://ann:canary-userinfo-1@example.org"):
        with pytest.raises(InvalidSpec) as caught:
            planted.launch(note=text)
        assert leaks(str(caught.value), [text]) == []
    job = planted.launch(policy__approval="required").id
    planted.service.reject_job(job, ADMIN, f"{STORED['MY_SECRET']} stands in the data")
    check_files(planted, EVERY.values())


def test_a_rendered_task_names_secrets_and_holds_none(planted: Workshop) -> None:
    spec = planted.spec(secrets=tuple(STORED), resources__infra="k8s", note="why").as_json()
    launch = Launch(attempt="ain-1", job_id="job", trainer_dir="/opt/training")
    task = render_task(JobSpec.model_validate(spec), launch)
    recipe = base64.b64decode(task["envs"]["AINFINITY_RECIPE"]).decode()
    text = render_yaml(JobSpec.model_validate(spec), launch)
    assert leaks(json.dumps(task) + text + recipe, EVERY.values()) == []
    assert task["secrets"] == dict.fromkeys(STORED)


def test_a_crash_of_the_worker_shows_no_secret(planted: Workshop) -> None:
    """A keyring or store that cannot be read, and a traceback on the way down."""
    (planted.settings.config_dir / "secrets.json").write_text(f'{{"MY_SECRET": "{STORED["MY_SECRET"]}')
    job = planted.submit("first", secrets=("MY_SECRET",))
    worker = planted.start_worker()
    wait_for(lambda: planted.row(job).state == "failed", "the job to fail")
    assert "damaged" in planted.row(job).error_message
    assert worker.wait(60) == 0
    check_files(planted, EVERY.values())

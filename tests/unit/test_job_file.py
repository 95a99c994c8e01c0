"""Job files: what is read, what is refused, and what the refusal says."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ainfinity.core.exceptions import AinfinityError, InvalidFile, InvalidSpec, NotFound, UsageError
from ainfinity.schema import job_file
from ainfinity.schema.document import MAX_BYTES, parse_document, parse_scalar
from ainfinity.schema.overrides import KNOWN, full_place
from ainfinity.schema.training_job import JobSpec

CANARY = "hf_CanaryCanaryCanaryCanary1234"
JOB = """\
name: demo
recipe:
  model: org/model
  data: rows.jsonl
  lr: 1e-4
  lora: {r: 4}
resources:
  cpus: 8
tags: [a, b]
"""
RECIPE = """\
# Teaches a small model.
# On a CPU.
model: org/model
lr: 2e-4
lora: {r: 4, alpha: 8}
plan_for: {processes: 2}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "rows.jsonl").write_text('{"messages": []}\n')
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return tmp_path


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one ready recipe, whatever the package holds."""
    path = tmp_path / "recipes-package" / "small-lora.yaml"
    path.parent.mkdir()
    path.write_text(RECIPE)
    monkeypatch.setattr(job_file, "_recipe_files", lambda: {"small-lora": path})


def write(folder: Path, text: str, name: str = "job.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_job_file_becomes_a_spec_with_paths_from_its_own_folder(folder: Path) -> None:
    spec = job_file.load_job_file(write(folder, JOB))
    assert spec.name == "demo"
    assert spec.recipe.data == str(folder / "rows.jsonl")
    assert spec.recipe.lr == 1e-4
    assert spec.recipe.lora is not None
    assert spec.recipe.lora.r == 4
    assert spec.resources.cpus == "8"  # a number in the file, text in the schema
    assert spec.tags == ("a", "b")
    assert spec.recipe.model == "org/model"  # no such folder: a name on the hub


def test_json_says_the_same(folder: Path) -> None:
    data = {
        "name": "demo",
        "recipe": {"model": "org/model", "data": "rows.jsonl", "lr": 1e-4, "lora": {"r": 4}},
        "resources": {"cpus": 8},
        "tags": ["a", "b"],
    }
    from_json = job_file.load_job_file(write(folder, json.dumps(data, indent=1), "job.json"))
    assert from_json == job_file.load_job_file(write(folder, JOB))


def test_an_existing_model_folder_becomes_absolute(folder: Path) -> None:
    (folder / "org" / "model").mkdir(parents=True)
    assert job_file.load_job_file(write(folder, JOB)).recipe.model == str(folder / "org" / "model")


def test_paths_on_the_command_line_start_from_the_current_folder(folder: Path) -> None:
    (folder / "elsewhere" / "mine.jsonl").write_text("{}\n")
    spec = job_file.load_job_file(write(folder, JOB), ["data=mine.jsonl"])
    assert spec.recipe.data == str(folder / "elsewhere" / "mine.jsonl")


def test_overrides_take_short_and_full_keys(folder: Path) -> None:
    changes = [
        "lr=1e-3",
        "recipe.lora.r=16",
        "lora.alpha=32",
        "gpus=H100:8",
        "infra=slurm/x",
        "retries=2",
        "note=a: b #1",
    ]
    spec = job_file.load_job_file(write(folder, JOB), changes)
    assert spec.recipe.lora is not None
    assert (spec.recipe.lr, spec.recipe.lora.r, spec.recipe.lora.alpha) == (1e-3, 16, 32)
    assert (spec.resources.gpus, spec.policy.retries, spec.note) == ("H100:8", 2, "a: b #1")


def test_an_empty_override_restores_the_default_and_null_unsets(folder: Path) -> None:
    spec = job_file.load_job_file(write(folder, JOB), ["tags=", "lora=null"])
    assert spec.tags == ()
    assert spec.recipe.lora is None


def test_no_short_key_is_ambiguous() -> None:
    parts = [KNOWN[""], KNOWN["recipe"], KNOWN["resources"], KNOWN["policy"]]
    for one, other in itertools.combinations(parts, 2):
        assert not set(one) & set(other)


@pytest.mark.usefixtures("ready")
class TestReadyRecipes:
    def test_by_name_alone(self, folder: Path) -> None:
        spec = job_file.load("small-lora", [f"data={folder / 'rows.jsonl'}"])
        assert (spec.name, spec.recipe_name, spec.resources.processes) == ("small-lora", "small-lora", 2)

    def test_named_in_a_job_file(self, folder: Path) -> None:
        text = "name: x\nrecipe: small-lora\nresources: {cpus: 2}\n"
        spec = job_file.load_job_file(write(folder, text), ["data=../rows.jsonl", "lr=5e-5"])
        assert spec.recipe.lr == 5e-5
        assert (spec.resources.processes, spec.resources.cpus) == (2, "2")  # suggestions below, wishes above

    def test_used_with_changes(self, folder: Path) -> None:
        text = "name: x\nrecipe:\n  use: small-lora\n  data: rows.jsonl\n  lora: {r: 64}\n"
        spec = job_file.load_job_file(write(folder, text))
        assert spec.recipe.lora is not None
        assert (spec.recipe.lora.r, spec.recipe.lora.alpha) == (64, 8)
        assert spec.recipe.data == str(folder / "rows.jsonl")

    def test_a_changed_value_is_blamed_where_it_was_written(self, folder: Path) -> None:
        text = "name: x\nrecipe:\n  use: small-lora\n  data: rows.jsonl\n  lr: -1\n"
        with pytest.raises(InvalidSpec, match=r"job\.yaml:5: recipe\.lr: must be greater"):
            job_file.load_job_file(write(folder, text))

    def test_missing_data_says_how_to_give_it(self, folder: Path) -> None:
        with pytest.raises(InvalidSpec, match=r"recipe\.data: is missing; .*data=rows\.jsonl"):
            job_file.load("small-lora")

    def test_unknown_name_suggests_the_nearest(self, folder: Path) -> None:
        with pytest.raises(NotFound) as caught:
            job_file.load("smal-lora")
        assert "small-lora" in caught.value.hint
        with pytest.raises(InvalidSpec, match=r"job\.yaml:2: recipe") as caught_in_file:
            job_file.load_job_file(write(folder, "name: x\nrecipe: smal-lora\n"))
        assert "small-lora" in caught_in_file.value.hint

    def test_its_summary_is_its_first_comment(self) -> None:
        recipe = job_file.load_recipe("small-lora")
        assert recipe.summary == "Teaches a small model. On a CPU."
        assert recipe.plan_for == {"processes": 2}
        assert "plan_for" not in recipe.recipe


def test_every_packaged_recipe_is_valid(folder: Path) -> None:
    for name in job_file.recipe_names():
        spec = job_file.load(name, [f"data={folder / 'rows.jsonl'}"])
        assert spec.recipe_name == name
        assert job_file.load_recipe(name).summary


REFUSALS = [
    (JOB.replace("lr: 1e-4", "lr: -1"), "job.yaml:5: recipe.lr: must be greater than or equal to 0"),
    (JOB.replace("lr: 1e-4", "lrr: 1"), "job.yaml:5: recipe.lrr: unknown key; did you mean lr?"),
    (JOB.replace("  lr:", "  gpus:"), "job.yaml:5: recipe.gpus: unknown key here; it belongs under resources:"),
    (JOB.replace("{r: 4}", "{r: 4, rnk: 3}"), "job.yaml:6: recipe.lora.rnk: unknown key"),
    (JOB.replace("cpus: 8", "gpus: 8"), "job.yaml:8: resources.gpus: is not of the right form"),
    (JOB.replace("tags: [a, b]", "tags: [a, b c]"), "job.yaml:9: tags.1: "),
    (JOB.replace("name: demo", "name: 'x; rm -rf ~'"), "job.yaml:1: name: must be 1 to 64"),
    (JOB + "name: other\n", "job.yaml:10: the key name stands there twice"),
    (JOB.replace("rows.jsonl", "nowhere.jsonl"), "job.yaml:4: recipe.data: there is no file"),
    (JOB.replace("rows.jsonl", "."), "is a folder; name a JSONL file in it"),
    (JOB.replace("rows.jsonl", "/dev/null"), "is not a regular file"),
    (JOB.replace("org/model", "./nowhere"), "job.yaml:3: recipe.model: there is no folder"),
    (JOB.replace("org/model", "https://host/model"), "job.yaml:3: recipe.model: is a URL"),
    (JOB.replace("name: demo\n", ""), "name: is missing"),
    (JOB.replace("  lr: 1e-4", "\tlr: 1e-4"), "job.yaml:5: is not valid YAML"),
    ("recipe: [1]\nname: x\n", "job.yaml:1: recipe: must hold settings of its own"),
    ("name: x\n", "recipe: is missing"),
    ("- a\n", "job.yaml:1: must hold `key: value` lines"),
    ("", "job.yaml is empty"),
    ("name: &x demo\nnote: *x\n", "job.yaml:2: aliases"),
    ("name: !!python/object/apply:os.system [id]\n", "job.yaml:1: tags (!name) are not supported"),
    ("name: a\n---\nname: b\n", "job.yaml:2: a second document"),
    ("[" * 100_000, "nested too deeply"),
    ("- " * 100_000, "nested too deeply"),
    ("{a: " * 50_000, "nested too deeply"),
    ("name: x\nnote: '" + "x" * MAX_BYTES + "'\n", "larger than 256 KiB"),
    ("name: x\nnote: \x01\n", "a character that YAML does not allow"),
]


@pytest.mark.parametrize(("text", "expected"), REFUSALS, ids=[expected[:40] for _, expected in REFUSALS])
def test_refusals_name_file_line_and_key(folder: Path, text: str, expected: str) -> None:
    with pytest.raises((InvalidFile, InvalidSpec)) as caught:
        job_file.load_job_file(write(folder, text))
    assert expected in caught.value.message


def test_all_problems_are_told_at_once(folder: Path) -> None:
    text = JOB.replace("lr: 1e-4", "lr: -1").replace("r: 4", "r: 0").replace("cpus: 8", "nodes: 0")
    with pytest.raises(InvalidSpec) as caught:
        job_file.load_job_file(write(folder, text))
    assert len(caught.value.message.splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1, "a": 2}', "stands there twice"),
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": ' + "9" * 5000 + "}", "too long"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1,\n}', "job.json:2: is not JSON"),
        ("[1]", "must hold a JSON object"),
        ("", "is not JSON"),
    ],
)
def test_bad_json_is_refused(text: str, expected: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        parse_document(text.encode(), label="job.json", folder=Path(), as_json=True)
    assert expected in caught.value.message


def test_unreadable_files(folder: Path) -> None:
    with pytest.raises(NotFound):
        job_file.load_job_file(folder / "missing.yaml")
    with pytest.raises(InvalidFile, match="folder"):
        job_file.load_job_file(folder)
    path = folder / "latin.yaml"
    path.write_bytes(b"name: x\nnote: caf\xe9\n")
    with pytest.raises(InvalidFile, match=r"latin\.yaml:2: is not UTF-8"):
        job_file.load_job_file(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("no", "no"),
        ("on", "on"),
        ("012", 12),
        ("1_000", 1000),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("true", True),
        ("~", None),
        ("", None),
        (".5", 0.5),
        ("-3", -3),
        ("1e999", "1e999"),
        (".inf", ".inf"),
        ("0x10", "0x10"),
    ],
)
def test_scalars_hold_no_surprise(text: str, value: Any) -> None:
    assert parse_scalar(text) == value
    assert type(parse_scalar(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        JOB + f"note: {CANARY}\n",
        JOB + f"secrets: [{CANARY}]\n",
        JOB.replace("org/model", f"https://me:{CANARY}x@host/m"),
        JOB.replace("org/model", "https://me:pa55w0rd@host/m"),
        JOB + f"{CANARY}: 1\n",
        JOB.replace("{r: 4}", f"{{r: 4, targets: [{CANARY}]}}"),
        JOB + f"note: {CANARY}\nlrr: [\n",
    ],
)
def test_a_pasted_secret_is_refused_by_name_and_not_repeated(folder: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        job_file.load_job_file(write(folder, text))
    assert CANARY not in str(caught.value.as_dict())
    assert "pa55w0rd" not in str(caught.value.as_dict())


def test_the_secret_check_passes_ordinary_text(folder: Path) -> None:
    """The control to the test above: the same jobs without a secret are taken."""
    assert job_file.load_job_file(write(folder, JOB + "note: see https://host/x\nsecrets: [HF_TOKEN]\n")).secrets == (
        "HF_TOKEN",
    )


@pytest.mark.parametrize("text", ["lrr=3", "foo", "=3", "a..b=3", "name.x=1", "sample_prompts=[a", "lora.r", "lr"])
def test_overrides_that_are_not_well_formed(folder: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        job_file.load_job_file(write(folder, JOB), [text])
    assert caught.value.hint


def test_short_key_suggests_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        full_place("max_step")
    assert "max_steps" in caught.value.hint


def test_a_stored_spec_can_be_changed(folder: Path) -> None:
    spec = job_file.load_job_file(write(folder, JOB))
    stored = json.loads(json.dumps(spec.as_json()))
    assert job_file.change_spec(stored, []) == spec
    assert job_file.change_spec(stored, ["lr=3e-5"]).recipe.lr == 3e-5
    assert stored["recipe"]["lr"] == 1e-4


keys = st.sampled_from(
    sorted({name for names in KNOWN.values() for name in names} | {"lora.r", "recipe.lora", "recipe.use"})
)
override_texts = st.one_of(
    st.text(max_size=40),
    st.builds("{}={}".format, keys, st.text(max_size=40)),
    st.builds("{}={}".format, keys, st.from_regex(r"[\[{'\"][^\n]{0,20}", fullmatch=True)),
    st.builds("{}.{}={}".format, keys, keys, st.text(max_size=10)),
)


@given(texts=st.lists(override_texts, max_size=3))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_override_is_taken_or_is_a_usage_error(tmp_path: Path, texts: list[str]) -> None:
    (tmp_path / "rows.jsonl").touch()
    path = write(tmp_path, JOB)
    try:
        spec = job_file.load_job_file(path, texts)
    except UsageError:
        pass  # anything else fails the test
    else:
        assert JobSpec.model_validate(spec.as_json()) == spec


@given(name=st.one_of(st.text(max_size=80), st.from_regex(r"[a-z0-9$`;&|<>(){}'\"\\ \n/.*?~-]{1,20}", fullmatch=True)))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_name_holds_nothing_a_shell_reads(tmp_path: Path, name: str) -> None:
    (tmp_path / "rows.jsonl").touch()
    try:
        spec = job_file.load_job_file(write(tmp_path, JOB), [f"name={name}"])
    except AinfinityError:
        return
    assert set(spec.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert not spec.name.startswith("-")
    assert os.path.basename(spec.name) == spec.name


@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(str.encode),
        st.text("a:-[]{} \n'\"&*!#%,?|>", max_size=60).map(str.encode),
    )
)
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_a_document_or_refused(content: bytes) -> None:
    for as_json in (False, True):
        try:
            document = parse_document(content, label="job.yaml", folder=Path(), as_json=as_json)
        except InvalidFile:
            continue
        assert isinstance(document.data, dict)

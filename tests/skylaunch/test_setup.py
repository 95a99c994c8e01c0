"""The setup script in a real bash, with stand-ins for uv and for the interpreters."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ainfinity.schema.training_job import JobSpec
from skylaunch.render import render_task
from skylaunch.templates import read_pins
from tests.skylaunch.cases import LAUNCH
from tests.skylaunch.machine import Node, finish

#: Notes its calls; `uv venv DIR` makes an interpreter that imports everything, and torch sees a GPU if GPU is set.
UV = """#!/bin/bash
echo "$1 $2" >>"$HOME/uv-calls"
case "$1" in
  venv) folder="${@: -1}"; mkdir -p "$folder/bin"
    printf '#!/bin/bash\\ncase "$*" in *cuda*) [ -n "$GPU" ] ;; esac\\n' >"$folder/bin/python"
    chmod +x "$folder/bin/python" ;;
  pip) [ -z "$UV_FAILS" ] || exit 1
    cat >"$HOME/installed"; echo "$*" >"$HOME/uv-pip" ;;
esac
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "home", "#!/bin/bash\nexit 0\n")
    uv = node.home / ".local" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    uv.write_text(UV)
    uv.chmod(0o755)
    yield node
    node.clear()


def setup(**resources: Any) -> dict[str, Any]:
    content = {"name": "chat", "recipe": {"model": "m", "data": "d"}, "resources": {"infra": "k8s", **resources}}
    return render_task(JobSpec.model_validate(content), LAUNCH)


def chosen(node: Node) -> str:
    return (node.folder / "python").read_text().strip()


def test_the_environment_holds_the_pins_and_torch_for_this_machine(node: Node) -> None:
    task = setup()
    assert node.run(task["setup"], task["envs"])[0] == 0
    assert node.says("installed").split() == read_pins().split()
    assert "--torch-backend auto" in node.says("uv-pip")
    assert chosen(node).startswith(f"{node.home}/.ainfinity/environments/")
    assert f"--python {chosen(node)}" in node.says("uv-pip")


def test_nodes_that_share_a_home_make_one_environment(node: Node) -> None:
    task = setup(nodes=3)
    running = [node.start(task["setup"], task["envs"], rank=rank, nodes=3) for rank in range(3)]
    assert [finish(one)[0] for one in running] == [0, 0, 0]
    assert node.says("uv-calls").split("\n").count("pip install") == 1


def test_an_environment_that_was_not_finished_is_made_again(node: Node) -> None:
    task = setup()
    assert node.run(task["setup"], task["envs"] | {"UV_FAILS": "1"})[0] != 0
    assert not (node.folder / "python").exists()
    assert node.run(task["setup"], task["envs"])[0] == 0
    assert node.says("uv-calls").split("\n").count("pip install") == 2


@pytest.mark.parametrize(("gpu", "code"), [("1", 0), ("", 1)])
def test_a_machine_whose_gpus_torch_cannot_see_trains_nothing(node: Node, gpu: str, code: int) -> None:
    task = setup(gpus="H100:8")
    found, said = node.run(task["setup"], task["envs"] | {"GPU": gpu})
    assert found == code
    assert ("torch finds no GPU" in said) == bool(code)


def test_the_users_own_interpreter_is_taken_as_it_is(node: Node) -> None:
    task = setup(python=str(node.python))
    assert node.run(task["setup"], task["envs"])[0] == 0
    assert (chosen(node), node.says("uv-calls")) == (str(node.python), "")


def test_helpers_that_are_built_come_along(node: Node) -> None:
    built = node.home / "torch_extensions" / "helper"
    built.mkdir(parents=True)
    (built / "helper.so").write_text("x")
    task = setup(python=str(node.python), nodes=2)
    running = [node.start(task["setup"], task["envs"], rank=rank, nodes=2) for rank in range(2)]
    assert [finish(one)[0] for one in running] == [0, 0]
    assert (node.home / ".ainfinity" / "extensions" / "helper" / "helper.so").read_text() == "x"


def test_an_interpreter_without_the_packages_is_named(node: Node) -> None:
    node.python.write_text("#!/bin/bash\necho \"No module named 'deepspeed'\" >&2\nexit 1\n")
    task = setup(python=str(node.python))
    code, said = node.run(task["setup"], task["envs"])
    assert code == 1
    assert "No module named 'deepspeed'" in said
    assert "resources.python lacks packages" in said


def test_control_a_real_interpreter_is_asked_without_importing(node: Node) -> None:
    """One without site-packages lacks them, the tests' own has them, and neither takes long to say so."""
    for options, code in (("-I -S", 1), ("", 0)):
        node.python.write_text(f'#!/bin/bash\nexec {sys.executable} -X importtime {options} "$@" 2>>"$HOME/imports"\n')
        task = setup(python=str(node.python))
        assert node.run(task["setup"], task["envs"])[0] == code
    said = node.says("imports")
    assert "lacks datasets,deepspeed,peft,torch,transformers" in said
    assert "importlib.util" in said
    assert " torch\n" not in said


@pytest.mark.parametrize("equipped", [True, False])
def test_an_image_that_has_everything_is_used_as_it_is(node: Node, equipped: bool) -> None:
    folder = node.home / "image"
    folder.mkdir()
    (folder / "python3").write_text(f"#!/bin/bash\nexit {0 if equipped else 1}\n")
    (folder / "python3").chmod(0o755)
    task = setup(image="docker:org/image:1.0")
    assert node.run(task["setup"], task["envs"] | {"PATH": f"{folder}:/usr/bin:/bin"})[0] == 0
    assert (chosen(node) == str(folder / "python3")) == equipped
    assert bool(node.says("uv-calls")) != equipped

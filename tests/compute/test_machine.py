"""Which GPUs a machine offers, asked without torch."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from ainfinity.compute.machine import find_devices, unwritable
from tests.compute.place import Place


@pytest.mark.parametrize(
    ("visible", "devices"),
    [
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("0", ("0",)),
        ("1, 3", ("1", "3")),
        ("2,-1,3", ("2",)),
        ("GPU-8932f937,MIG-1a", ("GPU-8932f937", "MIG-1a")),
    ],
)
def test_what_the_user_made_visible_counts(visible: str, devices: tuple[str, ...]) -> None:
    assert find_devices({"CUDA_VISIBLE_DEVICES": visible, "PATH": ""}) == devices


LISTING = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aa)
  MIG 1g.10gb     Device  0: (UUID: MIG-bb)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-cc)
"""


@pytest.mark.parametrize(
    ("script", "devices"),
    [
        (f"cat <<'EOF'\n{LISTING}EOF", ("0", "1")),
        ("echo 'No devices were found'", ()),
        ("echo 'GPU 0: x'; echo 'Driver/library version mismatch' >&2; exit 18", ()),
    ],
)
def test_nvidia_smi_is_asked(tmp_path: Path, script: str, devices: tuple[str, ...]) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    assert find_devices({"PATH": f"{tmp_path}:/bin:/usr/bin"}) == devices


def test_no_tool_no_gpus(tmp_path: Path) -> None:
    assert find_devices({"PATH": str(tmp_path)}) == ()


def test_slots_are_the_setting_or_the_gpus_or_one(place: Place) -> None:
    assert place.backend().capacity() == 8
    place.slots = 0
    assert place.backend().capacity() == 1
    assert place.backend(devices=("0", "1", "2")).capacity() == 3


def test_more_slots_than_gpus_share_them(place: Place) -> None:
    compute = place.backend(devices=("0",))
    for name in ("one", "two"):
        compute.launch(place.request(name, gpus=1))
    assert set(compute.observe_all()) == {"one", "two"}


def test_a_full_disk_is_told_from_other_faults(tmp_path: Path) -> None:
    full = "The disk of /d is full."
    assert unwritable(Path("/d"), OSError(errno.ENOSPC, "No space left on device")).message == full
    copied = shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")])
    assert unwritable(Path("/d"), copied).message == full
    with pytest.raises(OSError) as caught:
        (tmp_path / "x" / "y").mkdir()
    assert "No such file or directory" in unwritable(Path("/d"), caught.value).message

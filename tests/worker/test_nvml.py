"""What the agent reads of GPUs, with the real bindings on a stub of NVIDIA's library."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.worker.processes import ROOT

SOURCE = Path(__file__).with_name("nvml_stub.c")
# A line for each look, in one process, as the agent is one: the second card is lost between them.
LOOKS = """
import json, os, sys
from pathlib import Path
from worker_image.agent import Machine
folder = Path(sys.argv[1])
machine = Machine(folder)
for lost in (False, True):
    if lost:
        (folder / "lost").touch()
    print(json.dumps({"load": machine.load(), "hardware": machine.hardware()}))
"""
FIRST, SECOND = (f"GPU-00000000-0000-0000-0000-00000000000{n}" for n in (1, 2))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the stub, compiled."""
    if not (gcc := shutil.which("gcc")):
        pytest.skip("no gcc on the PATH: the stub of libnvidia-ml.so.1 cannot be compiled")
    folder = tmp_path_factory.mktemp("nvml")
    flags = ("-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
    output = folder / "libnvidia-ml.so.1"
    subprocess.run([gcc, *flags, "-o", output, SOURCE], check=True)
    return folder


def _looks(library: Path, folder: Path, **environment: str) -> list[dict[str, Any]]:
    run = subprocess.run(
        [sys.executable, "-c", LOOKS, str(folder)],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "LD_LIBRARY_PATH": str(library),
            "NVML_STUB_LOST": str(folder / "lost"),
            **environment,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stderr == ""
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_each_card_tells_what_it_can(library: Path, tmp_path: Path) -> None:
    seen, _ = _looks(library, tmp_path)
    assert seen["hardware"]["gpus"] == [
        {"name": "NVIDIA Stub 24", "uuid": FIRST, "memory_total_mb": 24576},
        {"name": "NVIDIA Stub 48", "uuid": SECOND, "memory_total_mb": 49152},
    ]
    first, second = seen["load"]["gpus"]
    assert first == {
        "uuid": FIRST,
        "load": 0.75,
        "memory_used_mb": 6144,
        "memory_total_mb": 24576,
        "temperature_c": 61,
        "power_w": 71.5,
    }
    assert second == {
        "uuid": SECOND,
        "load": 0.25,
        "memory_used_mb": 12288,
        "memory_total_mb": 49152,
        "temperature_c": 40,
        "power_w": None,  # it refuses to tell
    }
    assert seen["load"]["gpu_load"] == 0.5
    assert seen["load"]["gpu_memory_used_mb"] == 18432
    assert seen["load"]["gpu_memory_total_mb"] == 73728


def test_a_card_that_is_lost_on_the_way_costs_only_its_own_figures(
    library: Path, tmp_path: Path
) -> None:
    before, after = _looks(library, tmp_path)
    assert after["load"]["gpus"][0] == before["load"]["gpus"][0]
    lost = after["load"]["gpus"][1]
    figures = ("load", "memory_used_mb", "temperature_c", "power_w")
    assert [lost[name] for name in figures] == [None] * len(figures)
    assert after["load"]["gpu_load"] == 0.75
    assert after["load"]["gpu_memory_used_mb"] == 6144
    assert [gpu["name"] for gpu in after["hardware"]["gpus"]][0] == "NVIDIA Stub 24"


@pytest.mark.parametrize("why", ["no-driver", "no-library"])
def test_without_a_driver_there_is_no_gpu_and_no_error(
    library: Path, tmp_path: Path, why: str
) -> None:
    if why == "no-library":
        # Not a library at all: the loader refuses it, as where none is installed.
        library = tmp_path / "empty"
        library.mkdir()
        (library / "libnvidia-ml.so.1").write_text("")
    seen, _ = _looks(library, tmp_path, NVML_STUB=why)
    assert seen["hardware"]["gpus"] == []
    assert seen["load"]["gpu_load"] is None
    assert seen["load"]["gpu_memory_total_mb"] is None
    assert seen["hardware"]["cpu_count"] >= 1

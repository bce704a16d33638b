"""The flavors: what may stand in one, and the commands made of it, as a shell reads them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra import cli
from tests.worker.processes import AGENT
from worker_image import agent, flavors, version

# vLLM 0.32's, from `vllm serve --help=all`; tests/e2e/test_flavor_cpu.py asks the real one.
KNOWN_FLAGS = {
    "--dtype",
    "--enable-auto-tool-choice",
    "--enable-prefix-caching",
    "--enable-request-id-headers",
    "--enforce-eager",
    "--gpu-memory-utilization",
    "--kv-cache-memory-bytes",
    "--max-model-len",
    "--max-num-queued-reqs",
    "--max-num-queued-tokens",
    "--max-num-seqs",
    "--shutdown-timeout",
    "--tensor-parallel-size",
    "--tool-call-parser",
}
GOOD = """
title = "A card"
image = "example/vllm:v1"
gpu = "nvidia"
[vllm]
max-num-seqs = 4
max-num-queued-reqs = 8
max-num-queued-tokens = 1000
"""
FAKE_DOCKER = f"""#!{sys.executable}
import json, os, sys
print(json.dumps({{"words": sys.argv[1:], "environment": dict(os.environ)}}))
"""


def _flavor(folder: Path, text: str) -> str:
    file = folder / "mine.toml"
    file.write_text(text)
    return str(file)


def _printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["image", *words]) == 0
    return capsys.readouterr().out


def _docker(folder: Path, command: str, **environment: str) -> list[str]:
    """What docker gets when a shell runs the command."""
    for name, script in (("docker", FAKE_DOCKER), ("stat", "#!/bin/sh\necho 992\n")):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    run = subprocess.run(
        ["bash", "-eu", "-c", command],
        env={"PATH": f"{folder}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    words: list[str] = json.loads(run.stdout)["words"]
    return words


def test_all_that_are_asked_for_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    listed = [line.split()[0] for line in _printed(capsys).splitlines()]
    assert listed == ["cpu", "h100", "h200", "l4", "l40s", "mi300x", "nvidia"]


@pytest.mark.parametrize("name", flavors.names())
def test_a_flavor_turns_on_what_open_webui_and_the_queue_need(name: str) -> None:
    words = flavors.load(name).vllm.words()
    flags = {word for word in words if word.startswith("--")}
    assert flags <= KNOWN_FLAGS
    assert {"--enable-auto-tool-choice", "--tool-call-parser", "--enable-prefix-caching"} <= flags
    assert {"--max-num-queued-reqs", "--max-num-queued-tokens", "--max-num-seqs"} <= flags
    # Without one of the two vLLM takes 92 % of the machine, whatever else runs there.
    assert len(flags & {"--gpu-memory-utilization", "--kv-cache-memory-bytes"}) == 1


def test_every_flag_a_flavor_may_name_is_one_of_vllms() -> None:
    assert {f"--{name.replace('_', '-')}" for name in flavors.Vllm.model_fields} == KNOWN_FLAGS


def test_false_is_said_and_nothing_is_not(tmp_path: Path) -> None:
    text = f"{GOOD}enable-prefix-caching = false\nmax-model-len = 8192\n"
    words = flavors.load(_flavor(tmp_path, text)).vllm.words()
    assert "--no-enable-prefix-caching" in words
    assert words[words.index("--max-model-len") + 1] == "8192"
    assert "--dtype" not in words


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("v1", "latest", "image must end in an exact tag or @sha256:..."),
        ("example/vllm:v1", "example:5000/vllm", "image must end in an exact tag"),
        ("nvidia", "intel", "gpu: Input should be 'nvidia', 'amd' or 'none'"),
        ("max-num-seqs", "max-num-seq", "vllm.max-num-seq: Extra inputs are not permitted"),
        ("seqs = 4", "seqs = 9", "max-num-queued-reqs is below vllm.max-num-seqs"),
        ("seqs = 4", "seqs = -4", "vllm.max-num-seqs: Input should be greater than 0"),
        ("title", "name = 'x'\ntitle", "multiple values for keyword argument 'name'"),
        ("[vllm]", "[vllm", "mine.toml is no flavor"),
    ],
)
def test_a_wrong_flavor_names_the_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, told: str
) -> None:
    file = _flavor(tmp_path, GOOD.replace(old, new))
    assert cli.main(["image", file]) == 1
    written = capsys.readouterr()
    assert told in written.err
    assert written.out == ""


def test_an_image_by_its_digest_is_exact(tmp_path: Path) -> None:
    digest = f"example/vllm@sha256:{'0a' * 32}"
    file = _flavor(tmp_path, GOOD.replace("example/vllm:v1", digest))
    assert flavors.load(file).image == digest


@pytest.mark.parametrize("words", [["l5"], ["../l4"], ["--vllm"], ["--run", "m"]])
def test_an_unknown_flavor_is_told_which_there_are(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert cli.main(["image", *words]) == 1
    written = capsys.readouterr().err
    assert "cpu, h100, h200, l4, l40s, mi300x, nvidia, or a file *.toml" in written
    assert "Traceback" not in written


def test_a_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["image", "nowhere.toml"]) == 1
    assert "nowhere.toml cannot be read: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("name", flavors.names())
def test_the_build_names_the_base_and_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    words = _docker(tmp_path, _printed(capsys, name))
    flavor = flavors.load(name)
    assert words[0] == "build"
    assert f"--build-arg=IMAGE={flavor.image}" in words
    assert f"--tag=vestibule-worker:{name}" in words
    assert Path(words[-1]) == AGENT.parent


@pytest.mark.parametrize("name", flavors.names())
def test_the_run_carries_the_limits_and_proves_the_agent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    model = "/models/a model; touch $(pwd)"
    secret = "the-worker-token"
    command = _printed(capsys, name, "--run", model)
    words = _docker(tmp_path, command, VESTIBULE_WORKER_TOKEN=secret)
    flavor = flavors.load(name)
    image = words.index(f"vestibule-worker:{name}")
    assert words[image + 1 :] == [model, *flavor.vllm.words()]
    assert f"--env=VESTIBULE_SLOTS={flavor.vllm.max_num_seqs}" in words
    assert f"--env=WORKER_AGENT_SHA256={_checksum()}" in words
    assert "--env=VESTIBULE_WORKER_TOKEN" in words
    assert secret not in command
    gpu = {"nvidia": "--gpus=all", "amd": "--group-add=992", "none": "--shm-size=4g"}
    assert gpu[flavor.gpu] in words[:image]


def _checksum() -> str:
    script = Path(version.__file__)
    words = [sys.executable, str(script), "checksum"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def test_docker_waits_until_the_agent_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    """It lets answers finish, gives vLLM its time, and kills it when it hangs."""
    command = _printed(capsys, "l4", "--run", "m")
    drain_s, stop_s, vllm_s = (
        int(command.split(before)[1].split()[0])
        for before in ("DRAIN_TIMEOUT=", "--stop-timeout=", "--shutdown-timeout ")
    )
    assert stop_s >= drain_s + vllm_s + agent.ENGINE_STOP_S + 5


def test_vllms_arguments_alone_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = _printed(capsys, "h100", "--vllm").split()
    assert words == flavors.load("h100").vllm.words()


def test_the_table_of_flavors_is_the_code() -> None:
    rows = [
        f"| `{name}` | {flavor.title} | `{flavor.image}` | {flavor.vllm.max_num_seqs}"
        f" | {flavor.vllm.max_num_queued_reqs} | {flavor.vllm.max_num_queued_tokens:,} |"
        for name, flavor in ((name, flavors.load(name)) for name in flavors.names())
    ]
    page = (AGENT.parent.parent / "docs" / "worker.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("| `")] == rows

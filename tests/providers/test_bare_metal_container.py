"""A host with Docker: what is said to its daemon, as there is none among what these tests need."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from scheduler.fleet.port import Power, Refused, Unclear
from tests.providers.contract import ID
from tests.providers.metal import (
    ORDER,
    TOKEN,
    advance,
    gone,
    open_one,
)
from tests.providers.sshd import Sshd

DOCKER = """#!/bin/sh
state={state}
[ ! -e "$state/down" ] || {{ echo "cannot connect to the Docker daemon" >&2; exit 1; }}
echo "$@" >> "$state/said"
case "$1 $2" in
  "info ") ;;
  "run --rm") sha256sum {image} ;;
  "run --detach") echo running > "$state/status"; cp worker.env "$state/worker.env" ;;
  "container ls") [ ! -e "$state/status" ] || echo 0123456789ab ;;
  inspect*) cat "$state/status" 2>/dev/null || exit 1 ;;
  stop*) echo exited > "$state/status" ;;
  rm*) rm -f "$state/status" ;;
esac
"""


def _with_docker(server: Sshd, folder: Path, image: str = "image/agent.py") -> Path:
    state = folder / "docker"
    state.mkdir()
    program = server.folder / "bin" / "docker"
    program.write_text(DOCKER.format(state=state, image=image))
    program.chmod(0o700)
    return state


@pytest.mark.long
async def test_where_docker_is_the_worker_is_a_container(tmp_path: Path, server: Sshd) -> None:
    state = _with_docker(server, tmp_path)
    provider = open_one(server, tmp_path, way="auto", flavor="l40s", listen="0.0.0.0")
    machine = await provider.launch(ID, ORDER)
    machine = await advance(provider, machine)
    said = (state / "said").read_text()
    port = machine.address.rpartition(":")[2]
    assert "build --quiet --build-arg IMAGE=vllm/vllm-openai:" in said
    assert f"run --detach --name vestibule-{ID} --restart unless-stopped" in said
    assert f"--publish {port}:{port}" in said
    assert f"--env-file worker.env --gpus=all --ipc=host vestibule-worker:{ID}" in said
    assert TOKEN not in said
    given = dict(line.split("=", 1) for line in (state / "worker.env").read_text().splitlines())
    assert given["VESTIBULE_WORKER_TOKEN"] == TOKEN
    assert given["VESTIBULE_WORKER_ID"] == ID
    assert given["VESTIBULE_WORKER_URL"] == f"https://127.0.0.1:{port}"
    assert given["VESTIBULE_SLOTS"] == "48"
    assert "--max-num-seqs 48" in given["VESTIBULE_VLLM_ARGUMENTS"]
    (state / "status").write_text("exited")
    assert (await provider.look(machine.provider_id)).power is Power.STOPPED
    await provider.terminate(machine.provider_id)
    await gone(provider, machine)
    assert not (tmp_path / "one").exists()
    assert not (state / "status").exists()
    assert f"volume rm --force vestibule-{ID}" in (state / "said").read_text()


@pytest.mark.long
async def test_a_docker_that_does_not_answer_has_not_lost_its_container(
    tmp_path: Path, server: Sshd
) -> None:
    """It would start it again when it comes back."""
    state = _with_docker(server, tmp_path)
    provider = open_one(server, tmp_path, way="docker")
    machine = await advance(provider, await provider.launch(ID, ORDER))
    (state / "down").touch()
    with pytest.raises(Unclear, match="Docker does not answer"):
        await provider.look(machine.provider_id)
    for _ in range(3):
        with suppress(Unclear):
            await provider.terminate(machine.provider_id)
        await asyncio.sleep(1)
        assert (tmp_path / "one" / "claim").exists()
    (state / "down").unlink()
    await provider.terminate(machine.provider_id)
    await gone(provider, machine)
    assert not (state / "status").exists()


@pytest.mark.long
async def test_an_image_with_another_agent_is_never_started(tmp_path: Path, server: Sshd) -> None:
    state = _with_docker(server, tmp_path, image="/etc/hostname")
    provider = open_one(server, tmp_path, way="docker")
    machine = await provider.launch(ID, ORDER)
    with pytest.raises(Refused) as refused:
        await advance(provider, machine)
    assert refused.value.code == "AGENT_CHECKSUM_FAILED"
    assert "run --detach" not in (state / "said").read_text()
    await provider.terminate(machine.provider_id)
    await gone(provider, machine)
    assert f"image rm --force vestibule-worker:{ID}" in (state / "said").read_text()

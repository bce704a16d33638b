"""A host over SSH, from its claim to its last file: real sshd, real agent, real keys."""

import asyncio
import hashlib
import stat
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from scheduler.fleet.port import Gone, Power, Refused, Unclear
from tests.providers.contract import ID
from tests.providers.metal import (
    ORDER,
    TOKEN,
    advance,
    gone,
    marked,
    open_one,
    record,
    to_the_end,
)
from tests.providers.sshd import Sshd
from tests.worker.processes import AGENT
from tests.worker.stand_ins import Admission

# --- there and back -------------------------------------------------------------------------------


async def test_a_host_becomes_a_worker_and_nothing_is_left_of_it(
    tmp_path: Path, server: Sshd, admission: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", f"hf-{TOKEN}")
    provider = open_one(server, tmp_path, admission.url, secrets=["HF_TOKEN"])
    machine = await provider.launch(ID, ORDER)
    assert not machine.installed
    seen: set[str] = set()
    watch = asyncio.create_task(_command_lines(seen))
    machine = await advance(provider, machine)
    await admission.until_ready()
    watch.cancel()
    report, registered = admission.heartbeats[-1].body, admission.registrations[0].body
    assert (report["worker_id"], report["pool"], report["ready"]) == (ID, "night", True)
    assert registered["url"] == f"http://{machine.address}"
    checksum = hashlib.sha256(AGENT.read_bytes()).hexdigest()
    assert registered["agent_info"]["checksum"] == checksum
    assert len(seen) > 1
    assert not [line for line in seen if TOKEN in line]
    folder = tmp_path / "one"
    kept = [path for path in folder.rglob("*") if path.is_file() and _holds(path, TOKEN)]
    assert [path.name for path in kept] == ["worker.env"]
    assert f"HF_TOKEN=hf-{TOKEN}\n" in kept[0].read_text()
    assert stat.S_IMODE(kept[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not [path.name for path in folder.rglob("*") if path.stat().st_mode & 0o077]
    await provider.terminate(machine.provider_id)
    ending = await provider.look(machine.provider_id)
    assert ending == Gone() or ending.power is Power.STOPPING
    await gone(provider, machine)
    assert admission.drains
    assert not folder.exists()
    assert not marked(tmp_path)


async def _command_lines(seen: set[str]) -> None:
    while True:
        for process in psutil.process_iter():
            try:
                seen.add(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        await asyncio.sleep(0.01)


def _holds(path: Path, text: str) -> bool:
    return text.encode() in path.read_bytes()


@pytest.mark.long
async def test_an_installation_that_broke_off_is_resumed(tmp_path: Path, server: Sshd) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ ! -e {hold} ] || exec sleep 60\nexec {sys.executable} "$@"\n')
    python.chmod(0o700)
    provider = open_one(server, tmp_path, python=str(python))
    machine = await provider.launch(ID, ORDER)
    machine = await provider.advance(record(machine), machine)
    assert machine.phase == "checks the agent's checksum"
    before = {process.pid for process in marked(tmp_path)}
    machine = await provider.advance(record(machine), machine)
    seen = await provider._doors["one"].step("begin", "ours", ID)
    assert seen.installing
    assert before <= {process.pid for process in marked(tmp_path)}, "it was begun twice"
    for process in marked(tmp_path):
        process.kill()
    hold.unlink()
    machine = await advance(provider, machine)
    assert machine.installed
    await provider.terminate(machine.provider_id)
    await gone(provider, machine)
    assert not marked(tmp_path)


@pytest.mark.long
async def test_an_end_in_the_middle_of_an_installation_removes_all(
    tmp_path: Path, server: Sshd
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o700)
    provider = open_one(server, tmp_path, python=str(python))
    machine = await provider.launch(ID, ORDER)
    await provider.advance(record(machine), machine)
    assert marked(tmp_path)
    await provider.terminate(machine.provider_id)
    await gone(provider, machine)
    assert not (tmp_path / "one").exists()
    assert not marked(tmp_path)


@pytest.mark.long
async def test_what_an_end_that_broke_off_has_left_is_not_believed(
    tmp_path: Path, server: Sshd
) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    for name in ("vestibule", "started", "done.libraries", "failure", "agent.py"):
        (folder / name).write_text("INSTALL_FAILED old\n")
    provider = open_one(server, tmp_path)
    machine = await provider.launch(ID, ORDER)
    assert machine.failure is None
    assert (await advance(provider, machine)).installed


@pytest.mark.long
async def test_a_full_disk_is_the_next_host_and_keeps_no_end_from_making_room(
    tmp_path: Path, server: Sshd
) -> None:
    provider = open_one(server, tmp_path)
    server.full.touch()
    with pytest.raises(Refused, match="cannot be written") as refused:
        await provider.launch(ID, ORDER)
    assert refused.value.code == "SSH_NOT_ACCESSIBLE"
    server.full.unlink()
    machine = await advance(provider, await provider.launch(ID, ORDER))
    server.full.touch()
    await provider.terminate(machine.provider_id)
    await gone(provider, machine)
    assert not (tmp_path / "one").exists()
    assert not marked(tmp_path)


async def test_a_claim_that_was_lost_is_said(tmp_path: Path, server: Sshd) -> None:
    """As by a power cut: nobody can say whose it was."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "claim").touch()
    with pytest.raises(Refused, match="names nobody"):
        await open_one(server, tmp_path).launch(ID, ORDER)


@pytest.mark.long
async def test_what_runs_says_why_it_is_not_heard_and_is_not_gone_without_a_claim(
    tmp_path: Path, server: Sshd
) -> None:
    """Somebody removed the folder, or its disk is not mounted."""
    provider = open_one(server, tmp_path)
    machine = await advance(provider, await provider.launch(ID, ORDER))
    async with asyncio.timeout(10):
        while not machine.phase.endswith("admission at http://127.0.0.1:1 does not answer"):
            machine = await provider.advance(record(machine), machine)
    (tmp_path / "one").rename(tmp_path / "away")
    with pytest.raises(Unclear, match="runs, and its claim is away"):
        await provider.look(machine.provider_id)
    (tmp_path / "away").rename(tmp_path / "one")
    await provider.terminate(machine.provider_id)
    await gone(provider, machine)


async def test_its_folder_is_its_users_alone(tmp_path: Path, server: Sshd) -> None:
    (tmp_path / "one").mkdir(mode=0o755)
    await open_one(server, tmp_path).launch(ID, ORDER)
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o700


@pytest.mark.long
async def test_an_installation_that_a_reboot_ends_is_no_failure(
    tmp_path: Path, server: Sshd
) -> None:
    """Whoever shuts down says SIGTERM to all, and what is installed may hear it first."""
    rebooted = tmp_path / "rebooted"
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\n[ -e {rebooted} ] || {{ touch {rebooted}; kill -TERM $$; }}\n"
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o700)
    provider = open_one(server, tmp_path, python=str(python))
    machine = await provider.launch(ID, ORDER)
    assert (await advance(provider, machine)).installed
    assert rebooted.exists()
    await provider.terminate(machine.provider_id)
    await gone(provider, machine)


@pytest.mark.parametrize("said", [f'"{"#" * 270}$1"', f'"$1" "{"#" * 250}"'])
async def test_no_part_of_a_secret_is_in_its_last_words(
    tmp_path: Path, server: Sshd, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    """Whatever is cut is cut after they were taken out."""
    monkeypatch.setenv("HF_TOKEN", "hf-" + "s3cret" * 10)
    python = tmp_path / "python"
    script = f'#!/bin/sh\nset -- $(grep HF_TOKEN worker.env)\nprintf "%s\\n" {said} >&2\nexit 1\n'
    python.write_text(script)
    python.chmod(0o700)
    provider = open_one(server, tmp_path, python=str(python), secrets=["HF_TOKEN"])
    machine = await provider.launch(ID, ORDER)
    with pytest.raises(Refused) as refused:
        await advance(provider, machine)
    assert "s3c" not in refused.value.detail
    assert "###" in refused.value.detail
    assert len(refused.value.detail) < 500


async def test_a_folder_of_other_things_is_left_alone(tmp_path: Path, server: Sshd) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "thesis.tex").write_text("years of work")
    provider = open_one(server, tmp_path)
    with pytest.raises(Refused, match="holds other things"):
        await provider.launch(ID, ORDER)
    await provider.terminate(f"one/{ID}")
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["thesis.tex"]


# --- what goes wrong ------------------------------------------------------------------------------


async def test_another_agent_than_the_one_that_was_meant_is_never_started(
    tmp_path: Path, server: Sshd
) -> None:
    (tmp_path / "agent.py").write_bytes(AGENT.read_bytes() + b"# changed\n")
    right = hashlib.sha256(AGENT.read_bytes()).hexdigest()
    provider = open_one(server, tmp_path, agent="agent.py", agent_sha256=right)
    machine = await provider.launch(ID, ORDER)
    with pytest.raises(Refused) as refused:
        await advance(provider, machine)
    found = hashlib.sha256((tmp_path / "agent.py").read_bytes()).hexdigest()
    assert refused.value.code == "AGENT_CHECKSUM_FAILED"
    assert found in refused.value.detail
    assert not (tmp_path / "one" / "started").exists()
    assert not marked(tmp_path)


@pytest.mark.long
async def test_a_file_that_changed_on_its_way_is_noticed_there(
    tmp_path: Path, server: Sshd
) -> None:
    """The right file was sent, and another one lies on the host."""
    tar = server.folder / "bin" / "tar"
    tar.write_text('#!/bin/sh\n/bin/tar "$@" && echo "# changed" >> new/agent.py\n')
    tar.chmod(0o700)
    provider = open_one(server, tmp_path)
    machine = await provider.launch(ID, ORDER)
    with pytest.raises(Refused) as refused:
        await advance(provider, machine)
    assert refused.value.code == "AGENT_CHECKSUM_FAILED"


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vllm": "/no/such/vllm"}, "there is no executable /no/such/vllm"),
        ({"python": "/no/such/python"}, "/no/such/python"),
        ({"arguments": ["'"], "environment": {"VESTIBULE_SLOTS": "many"}}, "VESTIBULE_SLOTS"),
    ],
)
async def test_what_cannot_be_installed_says_why(
    tmp_path: Path, server: Sshd, change: dict[str, Any], words: str
) -> None:
    provider = open_one(server, tmp_path, **change)
    machine = await provider.launch(ID, ORDER)
    with pytest.raises(Refused) as refused:
        await to_the_end(provider, machine)
    assert refused.value.code == "INSTALL_FAILED"
    assert words in refused.value.detail
    assert TOKEN not in refused.value.detail


# --- with what a package registry gives -----------------------------------------------------------


@pytest.mark.long
async def test_the_agents_libraries_are_installed_by_hash(
    tmp_path: Path, server: Sshd, admission: Admission
) -> None:
    provider = open_one(server, tmp_path, admission.url, python="")
    machine = await provider.launch(ID, ORDER)
    phases: set[str] = set()
    async with asyncio.timeout(240):
        while not machine.installed:
            machine = await provider.advance(record(machine), machine)
            phases.add(machine.phase)
            await asyncio.sleep(0.2)
    await admission.until_ready()
    assert "installs the agent's libraries" in phases
    assert (tmp_path / "one" / "venv" / "bin" / "python").exists()
    await provider.terminate(machine.provider_id)
    await gone(provider, machine)
    assert not (tmp_path / "one").exists()

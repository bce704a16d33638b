"""Who enters which host: keys of hosts, keys of ours, other deployments, and what is configured."""

from pathlib import Path
from typing import Any

import asyncssh
import msgspec
import pytest

from admission.instance import Order
from infra.providers.bare_metal import Settings
from scheduler.fleet.port import Gone, Machine, Refused, Unclear
from tests.providers.contract import ID, OTHER
from tests.providers.metal import (
    ORDER,
    open_it,
    open_one,
    record,
    settings,
)
from tests.providers.sshd import Sshd


async def test_a_host_whose_key_has_changed_is_not_entered(tmp_path: Path, server: Sshd) -> None:
    provider = open_one(server, tmp_path, trust_on_first_use=True)
    machine = await provider.launch(ID, ORDER)
    known = server.known_hosts.read_text()
    server.new_host_key()
    await server.stop()
    await server.start()
    with pytest.raises(Refused, match="host key has changed") as refused:
        await provider.advance(record(machine), machine)
    assert refused.value.code == "SSH_NOT_ACCESSIBLE"
    for call in (provider.look(machine.provider_id), provider.terminate(machine.provider_id)):
        with pytest.raises(Unclear, match="has changed"):
            await call
    with pytest.raises(Refused, match="has changed"):
        await provider.launch(OTHER, ORDER)
    assert server.known_hosts.read_text() == known


async def test_a_host_that_nobody_knows_is_entered_only_where_that_is_chosen(
    tmp_path: Path, server: Sshd
) -> None:
    server.known_hosts.unlink()
    with pytest.raises(Refused, match="is not in") as refused:
        await open_one(server, tmp_path).launch(ID, ORDER)
    assert refused.value.code == "SSH_NOT_ACCESSIBLE"
    assert not server.known_hosts.exists()
    await open_one(server, tmp_path, trust_on_first_use=True).launch(ID, ORDER)
    assert server.known_hosts.read_text().strip().startswith(f"[127.0.0.1]:{server.port} ssh-ed")
    assert isinstance(await open_one(server, tmp_path).find(ID), Machine)


async def test_a_fingerprint_of_the_inventory_is_enough_and_is_held_to(
    tmp_path: Path, server: Sshd
) -> None:
    server.known_hosts.unlink()
    host = {
        "name": "one",
        "address": "127.0.0.1",
        "port": server.port,
        "folder": str(tmp_path / "x"),
    }
    pinned = settings(server, tmp_path, hosts=[{**host, "host_key": server.host_key}])
    assert await open_it(pinned, tmp_path).find(ID) == Gone()
    other = "SHA256:" + "A" * 43
    wrong = settings(server, tmp_path, hosts=[{**host, "host_key": other}])
    server.know()
    with pytest.raises(Unclear, match=f"not {other}"):
        await open_it(wrong, tmp_path).find(ID)


async def test_who_may_not_enter_is_told_so(tmp_path: Path, server: Sshd) -> None:
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(tmp_path / "other")
    with pytest.raises(Refused, match="may not enter") as refused:
        await open_one(server, tmp_path, key="other").launch(ID, ORDER)
    assert refused.value.code == "SSH_NOT_ACCESSIBLE"


@pytest.mark.long
async def test_a_silent_host_is_waited_for_and_then_given_up(tmp_path: Path, server: Sshd) -> None:
    provider = open_one(server, tmp_path, connect=1)
    now_s = 1_000.0
    provider._clock = lambda: now_s
    machine = await provider.launch(ID, ORDER)
    server.pause()
    with pytest.raises(Unclear, match="no answer within 1 s"):
        await provider.advance(record(machine), machine)
    now_s += 299
    with pytest.raises(Unclear):
        await provider.advance(record(machine), machine)
    now_s += 1
    with pytest.raises(Refused) as refused:
        await provider.advance(record(machine), machine)
    assert refused.value.code == "SSH_NOT_ACCESSIBLE"
    server.go_on()
    assert isinstance(await provider.advance(record(machine), machine), Machine)


@pytest.mark.parametrize("wrong", ["known_hosts", "address"])
async def test_what_cannot_be_read_holds_up_nothing_but_that_host(
    tmp_path: Path, server: Sshd, wrong: str
) -> None:
    """A person is in the midst of mending known_hosts, or mistyped a name."""
    host = {"name": "two", "address": "a..b", "folder": str(tmp_path / "two")}
    if wrong == "known_hosts":
        server.known_hosts.write_text("@revoked\n")
        provider = open_one(server, tmp_path)
    else:
        provider = open_one(server, tmp_path, AFAR, hosts=[host])
    with pytest.raises(Unclear):
        await provider.find(ID)


async def test_half_an_answer_is_none(tmp_path: Path, server: Sshd) -> None:
    (server.folder / "gate").write_text(f"#!/bin/sh\necho claim theirs {ID} 1\n")
    with pytest.raises(Unclear, match="broke off"):
        await open_one(server, tmp_path).find(ID)


async def test_a_host_is_one_deployments_alone(tmp_path: Path, server: Sshd) -> None:
    ours, theirs = open_one(server, tmp_path), open_one(server, tmp_path, name="theirs")
    machine = await ours.launch(ID, ORDER)
    seen = await theirs._doors["one"].step("claim", "theirs", OTHER, "1")  # both had seen it free
    assert (seen.deployment, seen.instance_id) == ("ours", ID)
    with pytest.raises(Refused) as refused:
        await theirs.launch(ID, ORDER)
    assert refused.value.code == "PROVIDER_OUT_OF_STOCK"
    assert await theirs.find(ID) == Gone()
    await theirs.terminate(machine.provider_id)
    with pytest.raises(Unclear, match="not claimed"):
        await theirs.advance(record(machine), machine)
    assert await ours.look(machine.provider_id) == machine


# --- settings -------------------------------------------------------------------------------------

AFAR = "http://192.0.2.1:8600"  # of the addresses for documentation (RFC 5737)
HOST = {"name": "one", "address": "10.0.0.7"}


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ({"hosts": []}, "hosts"),
        ({"hosts": [HOST, HOST]}, "hosts"),
        ({"hosts": [HOST, {**HOST, "name": "two"}]}, "hosts"),
        ({"hosts": [{**HOST, "name": "a/b"}]}, "name"),
        ({"hosts": [{**HOST, "address": "a b"}]}, "address"),
        ({"hosts": [{**HOST, "worker_address": "https://x"}]}, "worker_address"),
        ({"hosts": [{**HOST, "port": 0}]}, "port"),
        ({"hosts": [{**HOST, "worker_port": 70_000}]}, "worker_port"),
        ({"hosts": [{**HOST, "host_key": "md5:00"}]}, "host_key"),
        ({"hosts": [{**HOST, "folder": "a/../b"}]}, "folder"),
        ({"hosts": [{**HOST, "folder": "/"}]}, "folder"),
        ({"hosts": [{**HOST, "folder": "~/worker"}]}, "folder"),
        ({"hosts": [HOST], "folder": ""}, "folder"),
        ({"hosts": [HOST], "way": "podman"}, "way"),
        ({"hosts": [HOST], "connect": 50.0, "answer": 50.0}, "answer"),
        ({"hosts": [HOST], "vllm_package": "vllm; rm"}, "vllm_package"),
        ({"hosts": [HOST], "environment": {"HF_TOKEN": "x"}}, "environment"),
        ({"hosts": [HOST], "environment": {"A": "1\n2"}}, "environment"),
        ({"hosts": [HOST], "secrets": ["VESTIBULE_WORKER_TOKEN"]}, "secrets"),
        ({"hosts": [HOST], "environment": {"WORKER_AGENT_SHA256": "x"}}, "environment"),
    ],
)
def test_a_wrong_setting_is_named(table: dict[str, Any], field: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert(table, Settings, strict=True)


async def test_an_order_of_two_lines_is_refused(tmp_path: Path) -> None:
    chosen = msgspec.convert({"hosts": [HOST]}, Settings, strict=True)
    provider = open_it(chosen, tmp_path, admission_url=AFAR)
    with pytest.raises(Refused, match="model") as refused:
        await provider.launch(ID, Order("metal", model="m\nVESTIBULE_ADMISSION_URL=http://x"))
    assert refused.value.code == "PROVIDER_INVALID_ORDER"


@pytest.mark.parametrize("field", ["key", "flavor", "agent", "secrets"])
def test_what_is_not_there_is_named(tmp_path: Path, field: str) -> None:
    missing: Any = ["NO_SUCH_SECRET"] if field == "secrets" else "no-such.toml"
    table = {"hosts": [HOST], field: missing}
    with pytest.raises(ValueError, match=f"^{field}: "):
        open_it(msgspec.convert(table, Settings, strict=True), tmp_path, admission_url=AFAR)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8600", "http://localhost", "http://[::1]:80"])
def test_a_host_that_would_look_for_the_service_at_itself(tmp_path: Path, url: str) -> None:
    chosen = msgspec.convert({"hosts": [HOST]}, Settings, strict=True)
    with pytest.raises(ValueError, match=r"^hosts: .* admission_url"):
        open_it(chosen, tmp_path, admission_url=url)
    open_it(chosen, tmp_path, admission_url=AFAR)

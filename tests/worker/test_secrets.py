"""The worker's secrets and its certificate: made, pinned, made anew, taken away."""

import asyncio
import hashlib
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from admission.worker_tls import pinned, ssl_of
from tests.conftest import Service
from tests.worker.processes import Agent, agent
from tests.worker.stand_ins import (
    DEADLINE_S,
    STREAM_HEAD,
    Admission,
    Json,
    Request,
    Upstream,
    chunk,
)
from worker_image.agent import SettingsError, own_certificate, read_settings

CHAT = "/v1/chat/completions"
TOKEN = {"VESTIBULE_WORKER_TOKEN": "t"}


async def _workers(service: Service) -> list[Json]:
    key = {"Authorization": f"Bearer {service.admin_key}"}
    async with service.http.get("/admin/workers", headers=key) as answer:
        workers: list[Json] = (await answer.json())["workers"]
        return workers


async def _until(service: Service, true: Callable[[Json], bool]) -> Json:
    """Poll until something holds of the only worker. Raises `TimeoutError`."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            seen = await _workers(service)
            if seen and true(seen[0]):
                return seen[0]
            await asyncio.sleep(0.02)


async def _as_admin(service: Service, method: str, path: str) -> int:
    key = {"Authorization": f"Bearer {service.admin_key}"}
    async with service.http.request(method, path, headers=key) as answer:
        return answer.status


async def _upstream_key(service: Service) -> str:
    (worker,) = await service.store.workers("default")
    return worker.upstream_key or ""


async def _post(running: Agent, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    async with running.http.post(f"{running.url}/v1/x", headers=headers, data=b"{}") as answer:
        return answer.status


async def test_rotated_secrets_replace_the_former_and_no_stream_is_lost(
    tmp_path: Path, service: Service, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("admission.api.workers.HEARTBEAT_INTERVAL_S", 0.1)
    go_on = asyncio.Event()

    async def stream(r: Request, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(b"one"))
        if CHAT in r.line:
            await asyncio.wait_for(go_on.wait(), DEADLINE_S)
        writer.write(chunk(b"two") + chunk(b""))

    upstream.answer = stream
    async with agent(
        tmp_path,
        admission_url=service.url,
        vllm_url=upstream.url,
        VESTIBULE_WORKER_TOKEN=service.worker_token,
    ) as running:
        await _until(service, lambda view: bool(view["ready"]))
        former = await _upstream_key(service)
        headers = {"Authorization": f"Bearer {former}"}
        async with running.http.post(f"{running.url}{CHAT}", headers=headers, json={}) as answer:
            assert await answer.content.readany() == b"one"
            assert await _as_admin(service, "POST", "/admin/workers/w1/rotate") == 200
            async with asyncio.timeout(DEADLINE_S):
                while (newest := await _upstream_key(service)) == former:
                    assert (await _workers(service))[0]["ready"]  # at no moment is it lost
                    await asyncio.sleep(0.01)
            assert [await _post(running, key) for key in (newest, former)] == [200, 200]
            go_on.set()
            assert await answer.read() == b"two"
        assert (await _workers(service))[0]["ready"]
        kept = json.loads((tmp_path / "state.json").read_bytes())
        assert kept["upstream_keys"] == [newest, former]


async def test_a_revoked_worker_answers_nobody_and_stays_away_until_it_is_released(
    tmp_path: Path, service: Service, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("admission.api.workers.HEARTBEAT_INTERVAL_S", 0.1)
    async with agent(
        tmp_path,
        admission_url=service.url,
        vllm_url=upstream.url,
        VESTIBULE_WORKER_TOKEN=service.worker_token,
    ) as running:
        await _until(service, lambda view: bool(view["ready"]))
        former = await _upstream_key(service)
        assert await _as_admin(service, "DELETE", "/admin/workers/w1") == 200
        view = (await _workers(service))[0]
        assert (view["ready"], view["reason"]) == (False, "revoked by an admin")
        assert json.loads(await running.until("/readyz", 503))["reason"] == (
            "admission revoked this worker"
        )
        assert await _post(running, former) == 403
        assert await _as_admin(service, "POST", "/admin/workers/w1/release") == 200
        await _until(service, lambda view: bool(view["ready"]))
        assert await _upstream_key(service) != former


async def test_off_loopback_it_shows_a_certificate_of_its_own_which_is_pinned(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    async with agent(
        tmp_path,
        admission_url=admission.url,
        vllm_url=upstream.url,
        VESTIBULE_WORKER_TLS="on",
    ) as running:
        await admission.until_ready()  # it asked /info with the pinned certificate
        body = admission.registrations[0].body
        port = running.port
        shown = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
        der = ssl.PEM_cert_to_DER_cert(shown)
        assert body["fingerprint"] == hashlib.sha256(der).hexdigest()
        assert body["url"] == f"https://127.0.0.1:{port}"
        other = hashlib.sha256(b"another").hexdigest()
        async with aiohttp.ClientSession() as http:
            async with http.get(f"{running.url}/info", ssl=pinned(body["fingerprint"])) as answer:
                assert answer.status == 200
            for known in (pinned(other), pinned(None)):
                with pytest.raises(aiohttp.ClientError):
                    await http.get(f"{running.url}/info", ssl=known)
    pem = tmp_path / "state.pem"
    assert pem.stat().st_mode & 0o777 == 0o600
    assert own_certificate(pem, "w1").fingerprint == body["fingerprint"]  # it stays the same


async def test_admission_pins_what_was_registered(
    tmp_path: Path, service: Service, upstream: Upstream
) -> None:
    async with agent(
        tmp_path,
        admission_url=service.url,
        vllm_url=upstream.url,
        VESTIBULE_WORKER_TOKEN=service.worker_token,
        VESTIBULE_WORKER_TLS="on",
    ) as running:
        await _until(service, lambda view: bool(view["ready"]))
        (worker,) = await service.store.workers("default")
        assert worker.url == running.url
        assert ssl_of(worker) is ssl_of(worker)  # or no connection would be used twice
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{worker.url}/info", ssl=ssl_of(worker)) as answer,
        ):
            assert (await answer.json())["worker_id"] == "w1"


@pytest.mark.parametrize(
    ("host", "tls", "url"),
    [
        ("127.0.0.1", "auto", "http://127.0.0.1:9001"),
        ("localhost", "auto", "http://localhost:9001"),
        ("10.0.0.7", "auto", "https://10.0.0.7:9001"),
        ("10.0.0.7", "off", "http://10.0.0.7:9001"),
        ("::1", "on", "https://[::1]:9001"),
    ],
)
def test_where_it_listens_decides_on_tls(host: str, tls: str, url: str) -> None:
    settings = read_settings(["--host", host], TOKEN | {"VESTIBULE_WORKER_TLS": tls})
    assert settings.worker_url == url
    assert settings.with_tls == url.startswith("https")


def test_prompts_do_not_leave_the_machine_unencrypted_by_mistake() -> None:
    given = TOKEN | {"VESTIBULE_WORKER_URL": "http://gpu-1:9001"}
    with pytest.raises(SettingsError, match="must begin with https://"):
        read_settings(["--host", "0.0.0.0"], given)
    assert read_settings(["--host", "0.0.0.0"], given | {"VESTIBULE_WORKER_TLS": "off"})


def test_a_model_of_the_agents_own_is_on_loopback_behind_a_key() -> None:
    given = TOKEN | {"VESTIBULE_MODEL": "some/model"}
    settings = read_settings([], given)
    assert settings.vllm_url.startswith("http://127.0.0.1:")
    assert len(settings.vllm_key) > 20
    assert read_settings([], given | {"VESTIBULE_VLLM_URL": "http://localhost:8000/v1"})
    odd = ("http://127.0.0.1", "http://127.0.0.1:99999", "https://127.0.0.1:8000")
    for url in ("http://10.0.0.1:8000", *odd):
        with pytest.raises(SettingsError, match="VESTIBULE_VLLM_URL must be on loopback"):
            read_settings([], given | {"VESTIBULE_VLLM_URL": url})
    for url in ("http://[::1", "http://a:b:c"):
        with pytest.raises(SettingsError, match="VESTIBULE_VLLM_URL=.* must be an address"):
            read_settings([], TOKEN | {"VESTIBULE_VLLM_URL": url})
    with pytest.raises(SettingsError, match="VESTIBULE_VLLM_ARGUMENTS must be words"):
        read_settings([], given | {"VESTIBULE_VLLM_ARGUMENTS": "'open"})
    words = read_settings(["--", "--dtype", "auto"], given).vllm_arguments
    assert words == ("--dtype", "auto")


async def test_a_worker_without_a_name_keeps_the_one_it_found(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    environment: Any = {
        "VESTIBULE_WORKER_ID": "",
        "VESTIBULE_WORKER_STATE": "",
        "VESTIBULE_STATE_DIR": str(tmp_path / "state"),
    }
    async with agent(
        tmp_path, admission_url=admission.url, vllm_url=upstream.url, **environment
    ) as running:
        port = running.port
        await admission.until_ready()
    async with agent(
        tmp_path, admission_url=admission.url, vllm_url=upstream.url, port=port, **environment
    ):
        await admission.until(lambda: len(admission.registrations) == 2)
    first, second = (call.body["worker_id"] for call in admission.registrations)
    assert first == second
    assert f"-{port}-" in first

"""``vestibule gateway``: the gateway alone, in one process or several."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import requests
from redis import Redis

from tests.infra.conftest import DEADLINE_S, ROOT, clean_environment, eventually
from tests.ports import free_port

KEY = {"Authorization": "Bearer service-key", "X-OpenWebUI-User-Id": "ada"}
Start = Callable[..., "Gateway"]


class Gateway:
    """One running ``vestibule gateway``."""

    def __init__(self, redis_url: str, **changes: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "infra.cli", "gateway", "--port", str(port)],
            cwd=ROOT,
            env={
                **clean_environment(),
                "REDIS_URL": redis_url,
                "VESTIBULE_SERVICE_KEY": "service-key",
                "VESTIBULE_STATE_DIR": "no-such-folder",
                **changes,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def first_line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(self.url + path, headers={**KEY, **headers}, timeout=DEADLINE_S)

    def post(self, path: str, body: object = None) -> requests.Response:
        return requests.post(self.url + path, json=body, headers=KEY, timeout=DEADLINE_S)


@pytest.fixture
def start(valkey: str) -> Iterator[Start]:
    """Starts one over the test's Valkey, which is empty; ends what is left."""
    with Redis.from_url(valkey) as redis:
        redis.flushall()
    started: list[Gateway] = []

    def begin(**changes: str) -> Gateway:
        started.append(Gateway(valkey, **changes))
        return started[-1]

    yield begin
    for one in started:
        one.process.terminate()
        one.process.communicate(timeout=DEADLINE_S)


def test_it_serves_v1_and_auth_and_nothing_else(start: Start) -> None:
    one = start()
    assert one.first_line().startswith(f"Vestibule's gateway listens on {one.url} (pid ")
    assert one.get("/healthz").status_code == 200
    assert one.get("/readyz").status_code == 200
    assert one.get("/v1/models").json() == {"object": "list", "data": []}
    chat = one.post("/v1/chat/completions", {"model": "none", "messages": []})
    assert (chat.status_code, chat.json()["error"]["code"]) == (404, "model_not_found")
    asked = one.get("/auth", **{"X-Vestibule-Proxy-Key": "service-key"})
    assert asked.status_code == 429
    assert one.get("/auth").status_code == 403
    for path in ("/queue/status/ada", "/queue/metrics", "/admin/workers", "/docs", "/wait/ada"):
        assert one.get(path).status_code == 404, path
    assert one.post("/queue/join/ada").status_code == 404
    one.process.terminate()
    _, said = one.process.communicate(timeout=DEADLINE_S)
    assert (one.process.returncode, said) == (0, "")


@pytest.mark.long
def test_several_share_its_port(start: Start) -> None:
    one = start(VESTIBULE_PROCESSES="2")
    assert "in 2 processes" in one.first_line()
    eventually(lambda: one.get("/v1/models").status_code == 200, "it does not answer")
    assert one.get("/queue/metrics").status_code == 404


def test_without_redis_it_says_which_setting() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "infra.cli", "gateway"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert run.stderr.startswith("vestibule: REDIS_URL: needed")

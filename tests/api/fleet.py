"""Registers workers and beats for them, as their agents would."""

from typing import Any

from admission.domain import DEFAULT_POOL, WorkerReport
from tests.api.calls import AGENT_INFO, Caller, Reply, caller_of
from tests.conftest import Service

LOAD = {
    "gpu_load": 0.5,
    "gpu_memory_used_mb": 10,
    "gpu_memory_total_mb": 20,
    "cpu_load": 0.25,
    "memory_used_mb": 4096,
    "running": 1,
    "waiting": 0,
    "kv_cache_usage": 0.25,
    "gpus": [
        {
            "uuid": "GPU-1",
            "load": 0.5,
            "memory_used_mb": 10,
            "memory_total_mb": 20,
            "temperature_c": 40,
            "power_w": None,
        }
    ],
}
HARDWARE = {
    "cpu_count": 8,
    "memory_total_mb": 65536,
    "disk_total_mb": 1000,
    "disk_free_mb": 900,
    "gpus": [{"name": "H200", "uuid": "GPU-1", "memory_total_mb": 143771}],
}


def registration(url: str, **changes: Any) -> dict[str, Any]:
    """The body of a registration."""
    return {
        "worker_id": "w1",
        "url": url,
        "pool": "default",
        "models": ["tiny"],
        "slots": 2,
        "agent_info": AGENT_INFO,
        "hardware": None,
        **changes,
    }


def report(**changes: Any) -> dict[str, Any]:
    """The body of a heartbeat."""
    return {
        "worker_id": "w1",
        "pool": "default",
        "ready": True,
        "reason": None,
        "models": ["tiny"],
        "slots": 2,
        "in_flight": 1,
        "queue_depth": 0,
        "load": LOAD,
        "hardware": HARDWARE,
        "agent_info": AGENT_INFO,
        **changes,
    }


async def register(worker: Caller, url: str, **changes: Any) -> Reply:
    return await worker("POST", "/workers/register", registration(url, **changes))


async def beat(worker: Caller, **changes: Any) -> Reply:
    return await worker("POST", "/workers/heartbeat", report(**changes))


async def ready_worker(service: Service, url: str = "http://127.0.0.1:1") -> None:
    """Make a ready static worker known that serves the model tiny."""
    report = WorkerReport(ready=True, reason=None, models=("tiny",), slots=1)
    identity = {"url": url, "kind": "static"}
    await service.store.report_worker(DEFAULT_POOL, "w", report, identity=identity)
    await look_again(service)


async def look_again(service: Service) -> None:
    """Make the service read the registry now, as a change of a pool does."""
    admin = caller_of(service, service.admin_key)
    assert (await admin("PUT", "/admin/pools/default", {"paused": None})).status == 200

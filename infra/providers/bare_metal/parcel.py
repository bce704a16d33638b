"""What is put on a host: the agent, what it needs, and its settings with the worker token.

One tar, which goes over standard input: no secret is in a command line, and none in a log.
"""

import io
import os
import shlex
import tarfile
from collections.abc import Mapping
from pathlib import Path

import worker_image
from admission.instance import Order
from infra.image import GPU
from infra.providers.bare_metal.settings import Host, Settings
from infra.providers.deployment import Deployment
from infra.worker import AGENT_STOP_S
from worker_image.flavors import Flavor

SCRIPT = (Path(__file__).parent / "host.sh").read_text()
_IMAGE = Path(worker_image.__file__).parent
_BESIDE = ("requirements.txt", "Dockerfile", "entrypoint", "healthcheck.py")
_PROGRAMS = {"entrypoint", "host.sh"}


def parcel(
    settings: Settings,
    deployment: Deployment,
    host: Host,
    flavor: Flavor,
    agent: bytes,
    checksum: str,
    instance_id: str,
    order: Order,
) -> bytes:
    """The tar. ``checksum``: SHA-256 that the agent must have on the host, in hexadecimal."""
    said = _environment(settings, deployment, host, flavor, instance_id, order)
    files = {name: (_IMAGE / name).read_bytes() for name in _BESIDE}
    files |= {
        "agent.py": agent,
        "host.sh": SCRIPT.encode(),
        "worker.env": _lines(said | {"WORKER_AGENT_SHA256": checksum}),
        "install.conf": _assignments(settings, host, flavor, checksum, instance_id),
        "complete": b"",  # the last one: it says that nothing broke off
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o700 if name in _PROGRAMS else 0o600
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def grace_s(settings: Settings) -> int:
    """How long an agent's end may take before it is killed."""
    return round(settings.drain + AGENT_STOP_S + 5)


def worker_url(settings: Settings, host: Host) -> str:
    """How gateways call the agent."""
    name = host.worker_address or host.address
    name = f"[{name}]" if ":" in name else name
    return f"http{'s' * settings.with_tls}://{name}:{host.worker_port}"


def _environment(
    settings: Settings,
    deployment: Deployment,
    host: Host,
    flavor: Flavor,
    instance_id: str,
    order: Order,
) -> dict[str, str]:
    arguments = [*flavor.vllm.words(), *settings.arguments]
    return {
        **flavor.environment,
        "VESTIBULE_MODEL": order.model or settings.model,
        "VESTIBULE_VLLM_ARGUMENTS": shlex.join(arguments),
        "VESTIBULE_SLOTS": str(host.slots or flavor.vllm.max_num_seqs),
        "VLLM_NO_USAGE_STATS": "1",
        **settings.environment,
        **{name: os.environ[name] for name in settings.secrets},
        "VESTIBULE_ADMISSION_URL": deployment.admission_url,
        "VESTIBULE_WORKER_TOKEN": deployment.worker_token,
        "VESTIBULE_WORKER_ID": instance_id,
        "VESTIBULE_INSTANCE_ID": f"{host.name}/{instance_id}",
        "VESTIBULE_WORKER_HOST": settings.listen,
        "VESTIBULE_WORKER_PORT": str(host.worker_port),
        "VESTIBULE_WORKER_URL": worker_url(settings, host),
        "VESTIBULE_WORKER_DRAIN_TIMEOUT": str(settings.drain),
        "VESTIBULE_POOL": order.pool,
    }


def _assignments(
    settings: Settings, host: Host, flavor: Flavor, checksum: str, instance_id: str
) -> bytes:
    said = {
        "way": settings.way,
        "name": instance_id,
        "checksum": checksum,
        "python": settings.python,
        "vllm": settings.vllm,
        "vllm_package": settings.vllm_package,
        "image": flavor.image,
        "port": str(host.worker_port),
        "grace": str(grace_s(settings)),
        # A word of these is found out on the host, by its shell: the group that owns the card.
        "docker_words": " ".join([*GPU[flavor.gpu], *map(shlex.quote, flavor.docker)]),
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in said.items()).encode()


def _lines(said: Mapping[str, str]) -> bytes:
    """As Docker's ``--env-file`` reads them: nothing is quoted, so no value has two lines."""
    return "".join(f"{name}={value}\n" for name, value in said.items() if value).encode()

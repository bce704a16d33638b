"""What a provider must know of the deployment whose machines it makes."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Deployment:
    """Given to each provider's ``open``. ``name``: machines and disks are tagged with it; whatever
    carries another is never touched."""

    name: str
    admission_url: str  # as agents call it
    worker_token: str = field(repr=False)
    state_dir: Path  # a folder of ours, 0700
    folder: Path  # of the fleet file: its relative paths begin here
    agent_sha256: str | None = None  # the only agent file to use

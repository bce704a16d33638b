"""Workers on this machine: each "machine" is a ``vestibule worker`` with a folder of its own."""

from infra.providers.deployment import Deployment
from infra.providers.local.provider import Local
from infra.providers.local.settings import Settings

__all__ = ["Local", "Settings", "open"]


def open(name: str, settings: Settings, deployment: Deployment) -> Local:
    """The provider ``name``. Raises ``OSError`` when its folder cannot be made."""
    return Local(name, settings, deployment)

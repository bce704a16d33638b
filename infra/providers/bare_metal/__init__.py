"""Machines of an inventory that are reached over SSH: claimed, installed, watched and cleaned up.

``host.sh`` is what is done on a host; ``host`` says it over SSH; ``parcel`` is what is put there;
``provider`` is the port over an inventory of hosts.
"""

from infra.providers.bare_metal.provider import BareMetal
from infra.providers.bare_metal.settings import Settings
from infra.providers.deployment import Deployment

__all__ = ["BareMetal", "Settings", "open"]


def open(name: str, settings: Settings, deployment: Deployment) -> BareMetal:
    """The provider ``name``. Raises ``ValueError("field: why")`` for files it cannot use."""
    return BareMetal(name, settings, deployment)

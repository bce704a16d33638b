"""What providers answer about disks that bill none apart: there is nothing to find or delete."""

from collections.abc import Sequence

from admission.instance import Volume
from scheduler.fleet.port import Gone


class Diskless:
    """The disks of ``scheduler.fleet.port.Provider``, where each is its owner's or goes with the
    machine."""

    async def volumes(self, instance_id: str, provider_id: str) -> Sequence[Volume]:
        return []

    async def orphan_volumes(self, known: frozenset[str]) -> Sequence[tuple[str, Volume]]:
        return []

    async def delete_volume(self, provider_volume_id: str) -> None:
        """None can be meant."""

    async def look_volume(self, provider_volume_id: str) -> Volume | Gone:
        return Gone()

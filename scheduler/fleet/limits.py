"""How long each phase of an instance may take, and how often it is looked at.

Seconds. The sources in brackets are other people's values for the same step, read in their code:
I inventiv-agents 0.7, D dstack, G GPUStack, S SkyServe 0.14, A Amazon EC2's documentation.
"""

from msgspec import Struct

from scheduler.fleet.table import (
    ADDRESSED,
    ANSWERING,
    CREATED,
    HEALTHY,
    INSTALLED,
    LOADED,
    STARTED,
    WARM,
)

LIMIT_MAX_S = 30 * 86_400


class Limits(Struct, frozen=True, kw_only=True):
    """One of them for all instances; what is slower on a provider is set higher for all.

    Raises:
        ValueError: names the field.
    """

    # --- provisioning and booting: then it has failed ---
    provision_s: float = 600  # until the provider has answered the order [D 600]
    start_s: float = 600  # until it runs [D 600 to 3,300, G 300]
    address_s: float = 300  # until it has an address [I 376]
    install_s: float = 1_200  # until its agent is heard [I 900 + 180 for SSH; S 1,200 in all]
    fetch_s: float = 3_600  # until its model is there [I 3,600 for all of the start]
    load_s: float = 1_800  # until vLLM lists it [vLLM waits 600 for its engine]
    warm_s: float = 600  # until it has answered the agent's request
    health_s: float = 300  # until it is ready from there [I 300]
    rescue_s: float = 600  # a machine that was too slow is kept for, should it be heard after all
    watched_s: float = 60  # by one scheduler, before it misses a heartbeat; they come every 10 s
    verdict_s: float = 60  # for the agent's file to be the right one, from its first word

    # --- ready ---
    fresh_s: float = 30  # a heartbeat says how it is for so long (DESIGN section 9) [I 30, G 30]
    lost_s: float = 180  # of silence, seen by one scheduler, and it is lost [G 150, S 180]
    all_lost_s: float = 900  # the same when no worker at all is heard: that is rather our side
    unready_s: float = 900  # its model server is away while its agent reports [I 30 checks of 10 s]

    # --- draining and terminating ---
    drain_s: float = 120  # what runs is given, where nobody says otherwise
    spot_margin_s: float = 10  # it is ended so long before the provider does it
    settle_s: float = 5  # gateways know of a drain by then, and its next report counts them
    unseen_s: float = 300  # what is new may be "not found" so long, where lists lag [A: minutes]
    unnamed_s: float = 120  # more, where its launch may still be under way: two calls of 60 s
    again_s: float = 60  # a deletion is asked for again
    volumes_blind_s: float = 300  # it is ended though its disks could not be listed
    terminate_pending_s: float = 900  # then its end takes long, and that is shown [D 900]
    volumes_pending_s: float = 600  # the same of its disks [I 300 between two tries]
    archive_s: float = 86_400  # it is shown so long after its end

    # --- how often the provider is asked about one machine ---
    look_booting_s: float = 5  # a booting one is looked at
    look_ready_s: float = 60  # one that is well [I 60]
    look_spot_s: float = 15  # a spot machine: the notice comes 120 s before its end [A]
    look_unwell_s: float = 15  # one whose agent is silent
    look_ending_s: float = 5  # one that is being deleted

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not 0 <= getattr(self, name) <= LIMIT_MAX_S:
                raise ValueError(f"{name}: from 0 to {LIMIT_MAX_S}")

    def phase_s(self, progress: int) -> float:
        """How long a booting instance may stay at this progress."""
        return {
            CREATED: self.start_s,
            STARTED: self.address_s,
            ADDRESSED: self.install_s,
            INSTALLED: self.fetch_s,
            ANSWERING: self.load_s,
            LOADED: self.warm_s,
            WARM: self.health_s,
            HEALTHY: self.health_s,
        }[progress]

"""What a provider of machines must do, as the fleet sees it. Adapters are in ``infra/providers``.

One contract suite (``tests/providers``) holds for all of them. Every call is one bounded step and
may be repeated: its reply may be lost, and whoever repeats it may be another process. No call waits
for a machine to change its state; the next tick looks again. Blocking libraries run in threads.

Whether something exists has three answers. *Gone* is said only on the provider's own word that
there is no such thing; a time-out, a throttled or forbidden call, an answer that makes no sense are
`Unclear`, and nothing is concluded from them (reference: ``DESIGN.md`` section 3, *hold*).
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from admission.instance import Instance, Offer, Order, Volume


class Refused(Exception):
    """The provider said no, and will say so again to these words: the order has failed.

    ``code`` is one of the fleet's (``scheduler.fleet.codes``): PROVIDER_OUT_OF_STOCK,
    PROVIDER_QUOTA_EXCEEDED, PROVIDER_DENIED, PROVIDER_INVALID_ORDER, SSH_NOT_ACCESSIBLE,
    AGENT_CHECKSUM_FAILED, … ``detail`` is the provider's own word for it, for people.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.detail = code, detail


class Unclear(Exception):
    """No answer, or none from which anything follows: hold, and look again.

    ``throttled``: the provider asks for fewer calls; ``retry_after_s`` when it said how long.
    An error that is in no table of an adapter is unclear, never "no capacity".
    """

    def __init__(
        self, detail: str, *, throttled: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(detail)
        self.throttled, self.retry_after_s = throttled, retry_after_s


class Power(StrEnum):
    """How a machine is, in the provider's eyes."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"  # also of a machine that is being deleted
    STOPPED = "stopped"  # still billed in part, and still to be deleted


class Machine(Struct, frozen=True):
    """A machine that is there."""

    provider_id: str
    instance_id: str  # the tag it was launched with; "" for a machine of unknown origin
    power: Power
    address: str = ""  # host under which the gateway reaches its agent; "" until it has one
    zone: str = ""
    type: str = ""
    market: str = "on-demand"
    launched_ms: int | None = None  # as the provider says
    installed: bool = False  # agent and model server are there and started
    phase: str = ""  # in words, while it is installed: "pulls the image"
    failure: tuple[str, str] | None = None  # code and words: it can never become ready
    ends_ms: int | None = None  # a spot machine that the provider takes back then
    worker_id: str = (
        ""  # its agent's name, where the provider cannot choose it; else the instance's
    )


class Gone(Struct, frozen=True):
    """The provider said that there is no such thing (or that it is terminated).

    ``failure``: code and words, where it also says why the machine never came to be; a list that
    lags does not say so.
    """

    failure: tuple[str, str] | None = None


class Provider(Protocol):
    """One account, inventory or machine on which workers can be had.

    Every method raises `Unclear`; only ``launch`` and ``advance`` raise `Refused`.
    """

    name: str  # as in Order.provider
    capacity: int | None  # how many machines it can have at most; None: not known
    lag_s: float  # what is new may be "not found" for so long; 0: never
    ending: str  # what a machine's end means there, for who is asked before it

    async def offers(self) -> Sequence[Offer]:
        """What may be ordered now."""

    async def launch(self, instance_id: str, order: Order) -> Machine:
        """Make the machine, or give the one which was made for this id: never a second one.

        The machine and all its volumes are tagged with ``instance_id`` in the same call.
        """

    async def find(self, instance_id: str) -> Machine | Gone:
        """The machine which was launched for this id, when the reply to its launch was lost.

        ``Gone`` means only "not known (yet)" where a provider's lists lag; a launch that is
        repeated with the same id is safe then.
        """

    async def look(self, provider_id: str) -> Machine | Gone:
        """The machine as it is now."""

    async def advance(self, instance: Instance, machine: Machine) -> Machine:
        """One bounded step towards a running agent, where the provider does not do that alone
        (bare metal is installed over SSH). Elsewhere it gives ``machine`` back."""

    async def terminate(self, provider_id: str) -> None:
        """Begin to delete the machine. Also when that has begun, or is over."""

    async def machines(self) -> Sequence[Machine]:
        """All machines that carry a tag of this deployment, also unknown ids. Whole or `Unclear`:
        half a list would make orphans."""

    async def volumes(self, instance_id: str, provider_id: str) -> Sequence[Volume]:
        """The disks of a machine: those attached, and those that carry its tag, also after its
        end."""

    async def orphan_volumes(self, known: frozenset[str]) -> Sequence[tuple[str, Volume]]:
        """Disks with a tag of this deployment whose instance id is not among ``known``; each with
        that id."""

    async def delete_volume(self, provider_volume_id: str) -> None:
        """Begin to delete a disk. Also when that has begun, or is over."""

    async def look_volume(self, provider_volume_id: str) -> Volume | Gone:
        """The disk as it is now."""

    async def close(self) -> None:
        """Let go of connections. What runs goes on."""

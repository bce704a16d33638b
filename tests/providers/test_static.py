"""Machines of somebody else: the contract over an inventory, and that claims never meet."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from admission.instance import Order
from infra.providers import static
from infra.providers.deployment import Deployment
from infra.providers.locked import locked
from infra.providers.static import Claims, Settings, Static
from scheduler.fleet.port import Gone, Machine, Provider, Refused, Unclear
from tests.providers.contract import ID, OTHER, ProviderContract, World

HOSTS = (
    {"name": "gpu-1", "address": "10.0.0.7:9001", "type": "l40s", "price_per_hour": 0.9},
    {"name": "gpu-2", "address": "10.0.0.8:9001", "type": "l4", "zone": "cellar", "slots": 4},
)


def open_static(folder: Path, hosts: Any = HOSTS) -> Static:
    settings = msgspec.convert({"machines": hosts, "folder": "claims"}, Settings, strict=True)
    deployment = Deployment("ours", "http://10.0.0.1:8600", "t", folder / "state", folder)
    return static.open("static", settings, deployment)


class StaticWorld(World):
    provider: Provider
    order = Order("static")
    bad_order = Order("static", type="h100")
    disks = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.provider = open_static(folder)

    async def settle(self) -> None:
        pass

    @contextmanager
    def no_answer(self) -> Iterator[None]:
        """The storage with the claims is away."""
        away = self.folder / "away"
        (self.folder / "claims").rename(away)
        yield
        away.rename(self.folder / "claims")

    @contextmanager
    def lost_reply(self) -> Iterator[None]:
        """The connection to that storage breaks off right after the file was replaced."""
        replace = Path.replace

        def lost(self: Path, target: Path) -> Path:
            replace(self, target)
            raise OSError(5, "Input/output error")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "replace", lost)
            yield

    @contextmanager
    def refusing(self, code: str) -> Iterator[None]:
        assert code == "PROVIDER_OUT_OF_STOCK"
        file = self.folder / "claims" / "claims.json"
        claims = {h["name"]: {"instance_id": f"x-{n}", "since_ms": 0} for n, h in enumerate(HOSTS)}
        file.write_bytes(msgspec.json.encode(claims))
        yield
        file.unlink()

    async def delete_behind_our_back(self, provider_id: str) -> None:
        """Its owner takes it out of the inventory."""
        name = provider_id.partition("/")[0]
        self.provider = open_static(self.folder, [h for h in HOSTS if h["name"] != name])


class TestStatic(ProviderContract):
    REFUSALS: ClassVar = ["PROVIDER_OUT_OF_STOCK"]

    @pytest.fixture
    async def world(self, tmp_path: Path) -> World:
        return StaticWorld(tmp_path)


async def test_an_order_gets_a_machine_of_its_kind(tmp_path: Path) -> None:
    provider = open_static(tmp_path)
    machine = await provider.launch(ID, Order("static", type="l4", zone="cellar"))
    assert (machine.provider_id, machine.address) == (f"gpu-2/{ID}", "10.0.0.8:9001")
    assert machine.worker_id == "gpu-2"
    with pytest.raises(Refused, match="claimed") as refused:
        await provider.launch(OTHER, Order("static", zone="cellar"))
    assert refused.value.code == "PROVIDER_OUT_OF_STOCK"


async def test_a_machine_that_is_anothers_by_now_is_gone_and_not_released(tmp_path: Path) -> None:
    provider = open_static(tmp_path, HOSTS[:1])
    first = await provider.launch(ID, Order("static"))
    await provider.terminate(first.provider_id)
    second = await provider.launch(OTHER, Order("static"))
    assert await provider.look(first.provider_id) == Gone()
    await provider.terminate(first.provider_id)
    assert await provider.look(second.provider_id) == second


async def test_another_scheduler_sees_the_claims(tmp_path: Path) -> None:
    machine = await open_static(tmp_path).launch(ID, Order("static"))
    assert await open_static(tmp_path).find(ID) == machine


async def test_claims_that_are_made_at_once_never_meet(tmp_path: Path) -> None:
    providers = [open_static(tmp_path) for _ in range(4)]

    async def claim(number: int) -> str:
        try:
            return (await providers[number].launch(f"i-{number}", Order("static"))).provider_id
        except Refused:
            return ""

    got = [name for name in await asyncio.gather(*map(claim, range(4))) if name]
    assert sorted(name.partition("/")[0] for name in got) == ["gpu-1", "gpu-2"]
    machines = await providers[0].machines()
    assert sorted(machine.provider_id for machine in machines) == sorted(got)


def test_what_is_held_is_anothers_only_afterwards(tmp_path: Path) -> None:
    with locked(tmp_path / "lock"), pytest.raises(BlockingIOError), locked(tmp_path / "lock", 0):
        pass
    with locked(tmp_path / "lock", 0):
        pass


async def test_claims_that_cannot_be_read_say_nothing(tmp_path: Path) -> None:
    provider = open_static(tmp_path)
    machine = await provider.launch(ID, Order("static"))
    (tmp_path / "claims" / "claims.json").write_text("{")
    with pytest.raises(Unclear):
        await provider.look(machine.provider_id)
    with pytest.raises(Unclear):
        await provider.launch(OTHER, Order("static"))


def test_a_change_that_raises_is_not_kept(tmp_path: Path) -> None:
    claims = Claims(tmp_path)

    def broken() -> None:
        with claims.changed() as inside:
            inside["gpu-1"] = static.Claim(ID, 0)
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert claims.read() == {}


async def test_offers_are_of_kinds_the_cheapest_first(tmp_path: Path) -> None:
    hosts = [*HOSTS, {**HOSTS[0], "name": "gpu-3"}]
    offers = await open_static(tmp_path, hosts).offers()
    assert [(o.type, o.zone, o.price_per_hour, o.slots) for o in offers] == [
        ("l4", "cellar", None, 4),
        ("l40s", "", 0.9, 8),
    ]
    found = await open_static(tmp_path).find(ID)
    assert not isinstance(found, Machine)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "a b"}, "name"),
        ({"name": "gpu-2"}, "machines"),
        ({"address": "http://x"}, "address"),
        ({"pool": "A"}, "pool"),
        ({"slots": 0}, "slots"),
        ({"price_per_hour": -1.0}, "price_per_hour"),
        ({"adress": "x"}, "adress"),
    ],
)
def test_a_wrong_setting_is_named(change: dict[str, Any], field: str, tmp_path: Path) -> None:
    with pytest.raises(msgspec.ValidationError, match=field):
        open_static(tmp_path, [{**HOSTS[0], **change}, HOSTS[1]])


@pytest.mark.parametrize(
    ("order", "field"),
    [
        (Order("static", zone="attic"), "zone"),
        (Order("static", pool="night"), "pool"),
        (Order("static", market="spot"), "market"),
        (Order("static", model="m"), "model"),
    ],
)
async def test_a_wrong_order_is_refused_by_its_field(
    tmp_path: Path, order: Order, field: str
) -> None:
    with pytest.raises(Refused, match=field):
        await open_static(tmp_path).launch(ID, order)

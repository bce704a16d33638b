"""The fleet as a command composes it: what is refused at the start, and what a stop ends."""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.instance import State
from admission.settings import Settings, SettingsError
from admission.store.redis_store import RedisStore
from admission.store.tick_store import TickStore, Word
from infra import fleet_duties, up
from infra.errors import CommandError
from infra.fleet_duties import Fleet
from infra.providers import local
from scheduler.fleet.port import Machine, Power
from tests.conftest import service_settings
from tests.fleet.words import happened, machine, taken

FLEET = '[providers.here]\nkind = "local"\nmodel = "m"\n'


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "fleet.toml").write_text(FLEET)
    return service_settings(
        VESTIBULE_STATE_DIR=str(tmp_path), VESTIBULE_FLEET=str(tmp_path / "fleet.toml")
    )


async def _opened(store: RedisStore, settings: Settings) -> list[str]:
    file = fleet_duties.of(settings)
    async with fleet_duties.opened(file, store, settings, keep_local=True) as fleet:
        return [tick.name for tick in fleet.ticks]


async def test_the_ticks_are_those_of_the_file(store: RedisStore, settings: Settings) -> None:
    names = await _opened(store, settings)
    assert {"commands", "instances-here", "orphans-here", "offers-here"} < set(names)
    assert set(names[4:]) == {"unattended", "file", "budgets"}
    assert settings.fleet is not None
    settings.fleet.write_text(FLEET + "[pools.default]\n[pools.other]\n")
    assert {"scale-default", "scale-other"} < set(await _opened(store, settings))
    settings.fleet.write_text("[pool]")
    with pytest.raises(SettingsError, match=r"fleet\.toml: pool: unknown"):
        fleet_duties.of(settings)


async def test_without_a_file_only_what_is_left_of_one_is_told(
    store: RedisStore, settings: Settings
) -> None:
    assert await _opened(store, settings.model_copy(update={"fleet": None})) == ["unattended"]


async def test_a_token_is_needed(store: RedisStore, settings: Settings) -> None:
    with pytest.raises(CommandError, match="VESTIBULE_WORKER_TOKEN"):
        await _opened(store, settings.model_copy(update={"worker_token": None}))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("key: there is no such file"), "providers.here.key: there is no such file"),
        (PermissionError(13, "Permission denied"), "providers.here: .*Permission denied"),
    ],
)
async def test_a_provider_that_cannot_be_opened_is_named(
    store: RedisStore, settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Any, words: str
) -> None:
    def no(*_: object) -> None:
        raise error

    monkeypatch.setattr(local, "open", no)
    with pytest.raises(CommandError, match=words):
        await _opened(store, settings)


async def test_two_hosts_have_no_local_provider_of_one_name(
    redis: Redis, store: RedisStore, clock: ManualClock, settings: Settings
) -> None:
    ticks = TickStore(redis, clock)
    await ticks.beat(f"{socket.gethostname()}-1-ab", {"instances-here": Word(1000)})
    assert await _opened(store, settings)
    clock.advance_ms(60_000)
    await ticks.beat("elsewhere-1-ab", {"instances-here": Word(1000)})
    with pytest.raises(CommandError, match="elsewhere-1-ab on another host"):
        await _opened(store, settings)
    clock.advance_ms(60_000)  # it leads no more
    assert await _opened(store, settings)


class Here:
    """A local provider with one machine."""

    ended = 0

    async def machines(self) -> Sequence[Machine]:
        return [Machine("i-1", "i-1", Power.RUNNING)]

    async def end_all(self) -> None:
        self.ended += 1


async def test_a_stop_ends_what_runs_here_and_says_why(
    redis: Redis, store: RedisStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_duties, "TAKEN_S", 0.05)  # nobody takes it
    fence, here = await taken(redis, clock, "one"), Here()
    for name in ("i-1", "i-2"):  # the second one is another host's
        one = machine(name, state=State.READY)
        await store.fleet.write(fence, one, 0, [happened(one)])
    async with Fleet(store.fleet, (), {"here": here}).ending():  # type: ignore[dict-item]
        pass
    [(_, command)] = await store.fleet.commands()
    assert (command.instances, command.drain_s) == (("i-1",), 0)
    assert "stopped" in command.reason
    assert here.ended == 1
    async with Fleet(store.fleet).ending():
        pass
    assert len(await store.fleet.commands()) == 1


def test_a_fleet_switches_the_demo_off(settings: Settings) -> None:
    assert not up._has_demo(settings)
    assert up._has_demo(settings.model_copy(update={"fleet": None}))

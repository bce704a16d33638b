"""Every rule holds on every transport over every kind of Redis; `make contract` runs all of it."""

import pytest

from infra.doctor.deployment import deployment
from infra.doctor.examination import examine
from infra.doctor.report import told
from infra.doctor.rules import CHAPTERS, RULES
from tests.contract.events import FORMS
from tests.contract.set_ups import (
    ADMIN_KEY,
    ORIGIN,
    REDIS,
    SERVICE_KEY,
    TRANSPORTS,
    set_up,
)
from tests.scale.conftest import binary_of

POLL = "who cannot stream is told to poll"
NEED_STREAMS = {rule.name for rule in CHAPTERS["streams"]} - {POLL}
NEED_STREAMS |= {"a client has its whole turn by a stream"}
MATRIX = [
    pytest.param(transport, redis, id=f"{transport}-{redis}", marks=pytest.mark.soak)
    for transport in TRANSPORTS
    for redis in REDIS
]


def test_rules_have_names_and_sentences_of_their_own() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES) == sum(map(len, CHAPTERS.values()))
    assert all(rule.says.endswith((".", "}")) for rule in RULES)


@pytest.mark.parametrize(("transport", "redis"), MATRIX)
async def test_every_rule_holds(transport: str, redis: str) -> None:
    async with (
        set_up(transport, redis, binary_of("valkey")) as url,
        deployment(url, admin_key=ADMIN_KEY, service_key=SERVICE_KEY) as target,
    ):
        target.origin = ORIGIN
        await target.look()
        done = await examine(target, RULES)
        left = await target.look()
    assert [line for verdict in done.of("broken") for line in told(verdict)] == []
    skipped = {verdict.rule.name for verdict in done.of("skipped")}
    streamless = transport == "package" or transport in FORMS
    assert skipped == (NEED_STREAMS if streamless else {POLL})
    assert (set(left), done.left) == ({"default"}, [])

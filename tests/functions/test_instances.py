"""The fleet's instances, by a function: the same operations, without the stream."""

from collections.abc import Callable
from pathlib import Path

from redis import Redis as BlockingRedis

from admission.accounting import instances as past
from admission.accounting.ledger import Ledger
from admission.instance import State
from admission.store.fleet_records import Recorded
from admission.store.names import fleet_key
from tests.fleet.words import happened, machine
from tests.functions.conftest import ADMIN, Asking

OFFERED = '1800000000000 [{"type":"g5","zone":"a","market":"on-demand","price_per_hour":1.0}]'


def test_machines_are_ordered_followed_and_ended(ask: Asking, empty: str) -> None:
    with BlockingRedis.from_url(empty) as redis:
        redis.hset(fleet_key("offers"), "aws", OFFERED)
    offers = ask("GET", "/admin/instances/offers", key=ADMIN)
    assert offers.json["providers"][0]["offers"][0]["slots"] == 1
    made = ask("POST", "/admin/instances", {"provider": "aws"}, key=ADMIN)
    assert made.status == 202
    [one] = made.json["instances"]
    assert ask("GET", f"/admin/instances/{one}", key=ADMIN).json["pending"]
    [listed] = ask("GET", "/admin/instances", key=ADMIN).json["instances"]
    assert (listed["instance_id"], listed["pool"]) == (one, "default")
    assert ask("GET", "/admin/fleet", key=ADMIN).json == {"pools": []}
    ended = ask("DELETE", f"/admin/instances/{one}", key=ADMIN)
    assert (ended.status, ended.json["kind"]) == (202, "terminate"), "both wait, in their order"


def test_what_is_only_in_sql_or_streams_is_elsewhere(ask: Asking) -> None:
    past = ask("GET", "/admin/instances?state=archived", key=ADMIN)
    assert (past.status, past.json["code"], past.json["field"]) == (
        422,
        "no_accounting_here",
        "state",
    )
    assert ask("GET", "/admin/instances?state=archived").status == 403
    events = ask("GET", "/admin/events", key=ADMIN)
    assert (events.status, events.json["code"]) == (501, "no_streams_here")
    assert ask("GET", "/admin/events").status == 403
    assert ask("GET", "/admin/instances/i-9", key=ADMIN).status == 404
    document = ask("GET", "/openapi.json", key=None).json["paths"]
    assert "/admin/instances/{instance_id}/drain" in document
    assert "/admin/events" not in document


def test_with_a_database_the_past_is_told_too(
    functions_of: Callable[..., Asking], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/usage.db"
    ledger, gone = Ledger(url), machine(state=State.ARCHIVED)
    past.add(ledger, [Recorded("1-0", happened(gone, "archive"), gone)])
    ledger.close()
    ask = functions_of(VESTIBULE_DATABASE_URL=url)
    [listed] = ask("GET", "/admin/instances?state=archived", key=ADMIN).json["instances"]
    assert listed["instance_id"] == "i-1"
    assert ask("GET", "/admin/instances", key=ADMIN).json == {"instances": []}
    [line] = ask("GET", "/admin/instances/i-1", key=ADMIN).json["history"]
    assert line["name"] == "archive"

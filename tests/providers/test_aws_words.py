"""What EC2's errors, prices and our settings for it mean."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from infra import fleet_file
from infra.providers.aws import Ec2, errors, open, prices
from infra.providers.aws.calls import Calls
from infra.providers.deployment import Deployment
from scheduler.fleet.codes import CODES
from scheduler.fleet.port import Refused, Unclear
from tests.providers.aws_world import ORDER, REGION, Ec2World, settings
from tests.providers.contract import ID
from tests.providers.ec2 import FakeEc2


@pytest.fixture
def world() -> Iterator[Ec2World]:
    made = Ec2World()
    yield made
    made.close()


# --- errors -------------------------------------------------------------------------------------


async def test_every_refusal_is_one_of_the_fleets(world: Ec2World) -> None:
    for code, (fleet_code, _) in errors.REFUSALS.items():
        with world.wire.breaking(code, "RunInstances"), pytest.raises(Refused) as no:
            await world.ec2.launch(ID, ORDER)
        assert no.value.code == fleet_code
        assert no.value.code in CODES
        assert no.value.detail == f"{code}: no"


@pytest.mark.parametrize(
    ("code", "fleet_code"),
    [
        ("AuthFailure.ServiceLinkedRoleCreationNotPermitted", "PROVIDER_DENIED"),
        ("AccessDenied", "PROVIDER_DENIED"),
        ("EncryptedVolumesNotSupported", "PROVIDER_INVALID_ORDER"),
        ("UnfulfillableCapacity", "PROVIDER_OUT_OF_STOCK"),
        ("MaxSpotInstanceCountExceeded", "PROVIDER_QUOTA_EXCEEDED"),
    ],
)
def test_what_no_repetition_would_change_is_a_no(code: str, fleet_code: str) -> None:
    assert errors.REFUSALS[code][0] == fleet_code


@pytest.mark.parametrize(
    "code", ["Bizarre", "InternalError", "Unavailable", "ExpiredToken", "IncorrectState", ""]
)
async def test_an_unknown_code_is_unclear_and_never_no_capacity(world: Ec2World, code: str) -> None:
    with world.wire.breaking(code or "Unknown", "RunInstances"), pytest.raises(Unclear) as unclear:
        await world.ec2.launch(ID, ORDER)
    assert not unclear.value.throttled


@pytest.mark.parametrize(
    "code", ["UnauthorizedOperation", "Unsupported", "InvalidInstanceID.Malformed", "Bizarre"]
)
async def test_only_not_found_says_gone(world: Ec2World, code: str) -> None:
    machine = await world.ec2.launch(ID, ORDER)
    with world.wire.breaking(code):
        for ask in (
            world.ec2.look(machine.provider_id),
            world.ec2.terminate(machine.provider_id),
            world.ec2.look_volume("vol-00000001"),
            world.ec2.delete_volume("vol-00000001"),
            world.ec2.machines(),
            # A no to a question says nothing about the order.
            world.ec2.launch(ID, ORDER),
        ):
            with pytest.raises(Unclear):
                await ask


async def test_a_throttled_call_says_for_how_long(world: Ec2World) -> None:
    for code in errors.THROTTLED:
        with world.wire.breaking(code), pytest.raises(Unclear) as unclear:
            await world.ec2.machines()
        assert unclear.value.throttled
        assert unclear.value.retry_after_s == (7.0 if code == "RequestLimitExceeded" else None)


def test_the_tables_contradict_each_other_nowhere_and_name_their_pages() -> None:
    assert not errors.REFUSALS.keys() & errors.THROTTLED.keys()
    assert not errors.REFUSALS.keys() & errors.GONE.keys()
    pages = [page for _, page in (*errors.REFUSALS.values(), *errors.DEATHS.values())]
    pages += [*errors.THROTTLED.values(), *errors.GONE.values()]
    assert all(page.startswith("https://docs.aws.amazon.com/") for page in pages)
    assert {code for code, _ in errors.DEATHS.values()} <= CODES.keys()


async def test_half_a_list_is_none(world: Ec2World) -> None:
    """It would make orphans of the rest."""
    for number in range(5):
        await world.ec2.launch(f"i-{number}", ORDER)
    assert len(await world.ec2.machines()) == 5
    asked: list[str] = []

    def second_page(operation: str) -> str:
        asked.append(operation)
        return "InternalError" if len(asked) == 2 else ""

    world.wire.fault = second_page
    with pytest.raises(Unclear):
        await world.ec2.machines()
    world.wire.fault = lambda operation: ""


async def test_an_answer_that_makes_no_sense_is_unclear(
    world: Ec2World, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = await world.ec2.launch(ID, ORDER)
    confused = {"InstanceId": "i-1", "State": {"Name": "confused"}}
    answers: list[list[dict[str, Any]]] = [[], [{}], [{"Instances": [confused]}]]
    for answer in answers:
        told = {"Reservations": answer}
        monkeypatch.setattr(FakeEc2, "describe_instances", lambda self, _told=told, **words: _told)
        with pytest.raises(Unclear):
            await world.ec2.look(machine.provider_id)


NOT_EC2 = (
    (200, b"<html>Welcome to this hotel's network"),
    (502, b"<html><body>Bad Gateway</body></html>"),
    (500, b""),
    (400, b'{"no": "XML"}'),
)


@contextmanager
def _somebody() -> Iterator[tuple[str, list[bytes]]]:
    """The URL of who answers like that, one after the other, and what was asked."""
    asked: list[bytes] = []

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, body = NOT_EC2[len(asked)]
            asked.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


async def test_who_is_not_ec2_says_nothing_and_is_asked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    with _somebody() as (url, asked):
        ec2 = Ec2("aws", settings(), "ours", Calls(REGION, endpoint_url=url))
        for number in range(len(NOT_EC2)):
            with pytest.raises(Unclear):
                await ec2.look("i-0a")
            assert len(asked) == number + 1
        await ec2.close()


# --- offers -------------------------------------------------------------------------------------


async def test_offers_are_types_in_zones_on_markets_cheapest_first(world: Ec2World) -> None:
    at = {"Timestamp": world.clock.now_ms(), "ProductDescription": "Linux/UNIX"}
    world.cloud.spot_prices = [
        at | {"InstanceType": "g6.xlarge", "AvailabilityZone": "eu-central-1a", "SpotPrice": price}
        for price in ("0.412300", "0.399900", "0")
    ][:2]
    offers = await world.ec2.offers()
    assert len(offers) == 8
    first = offers[0]
    assert (first.type, first.zone, first.market) == ("g6.xlarge", "eu-central-1a", "spot")
    assert (first.price_per_hour, first.slots) == (0.3999, 8)
    assert first.source == "DescribeSpotPriceHistory"
    paid = [each.price_per_hour or 0 for each in offers]
    assert paid == sorted(paid)
    assert paid[1] == 1.0064  # what spot costs at most, where EC2 tells no price
    assert prices.source() in offers[1].source
    assert {each.price_per_hour for each in offers if each.type == "g6e.xlarge"} == {2.327}


async def test_a_price_of_the_fleet_file_counts_before_ours(world: Ec2World) -> None:
    ec2 = world.of("ours", markets=("on-demand",), prices={"g6.xlarge": 0.75})
    offers = await ec2.offers()
    assert (offers[0].price_per_hour, offers[0].source) == (0.75, "the fleet file")
    assert world.wire.called == []


async def test_spot_prices_that_may_not_be_asked_for_stop_nothing(world: Ec2World) -> None:
    with world.wire.breaking("UnauthorizedOperation", "DescribeSpotPriceHistory"):
        assert len(await world.ec2.offers()) == 8
    with world.wire.breaking("InternalError"), pytest.raises(Unclear):
        await world.ec2.offers()


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"region": "mars"}, "region: must be"),
        ({"subnets": {}}, "subnets: must name"),
        ({"subnets": {"us-east-1a": "subnet-0a"}}, "subnets: must name zones of eu-central-1"),
        ({"types": {}}, "types: must name"),
        ({"types": {"p5.48xlarge": 8}}, "prices: no price of p5.48xlarge in eu-central-1"),
        ({"prices": {"g6.xlarge": -1.0}}, "prices: must be more than 0"),
        ({"markets": ()}, "markets: must name"),
        ({"image": ""}, "image: must be said"),
        ({"image": "debian"}, "image: must be ami-"),
        ({"disk": 0}, "disk: must be said"),
        ({"security_groups": ()}, "security_groups: must be said"),
        ({"efa": True, "launch_template": "lt-0a"}, "efa: needs"),
        ({"tags": {"vestibule-pool": "x"}}, "tags: vestibule-pool is said"),
        ({"tags": {"a b": "x"}}, "tags: must be keys"),
        ({"data_disk": 0, "keep_data_disk": True}, "keep_data_disk: needs"),
        ({"disk_iops": 100}, "disk_iops: must be from"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(more: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        settings(**more)


def test_the_docs_show_a_table_that_is_one(tmp_path: Path) -> None:
    docs = Path(__file__).parent.parent.parent / "docs" / "providers.md"
    (example,) = re.findall(r"```toml\n(\[providers\.aws\].*?)```", docs.read_text(), re.DOTALL)
    (tmp_path / "fleet.toml").write_text(example)
    planned = fleet_file.read(tmp_path / "fleet.toml").providers["aws"]
    assert planned.kind == "aws"
    assert planned.settings.markets == ("spot", "on-demand")


async def test_it_opens_without_asking_aws_and_sends_the_users_file(tmp_path: Path) -> None:
    deployment = Deployment("ours", "http://127.0.0.1:1", "token", tmp_path, tmp_path)
    with pytest.raises(FileNotFoundError):
        open("aws", settings(), deployment)
    (tmp_path / "worker.sh").write_bytes(b"#" * 16_384)
    provider = open("aws", settings(), deployment)
    assert provider._user_data == b"#" * 16_384
    await provider.close()
    (tmp_path / "worker.sh").write_bytes(b"#" * 16_385)
    with pytest.raises(OSError, match="16384 bytes at most"):
        open("aws", settings(), deployment)

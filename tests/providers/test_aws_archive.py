"""A model's archive in S3: one URL for each launch, which only its machine reads."""

import asyncio
import base64
import hashlib
import io
import logging
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from aiohttp import ClientSession
from botocore.credentials import RefreshableCredentials

from admission.instance import Command, Kind, Order
from infra.providers.aws import Ec2, open
from infra.providers.aws.settings import SAID_AGAIN_S, URL_S_MAX
from infra.providers.deployment import Deployment
from scheduler.fleet.commands import Commands
from scheduler.fleet.port import Refused, Unclear
from scheduler.fleet.reconcile import Reconciler
from tests.aws import cloud
from tests.fleet.agents import PlainWorkers
from tests.fleet.plain_store import PlainFleetStore
from tests.providers.aws_world import ORDER, REGION, Ec2World, settings
from tests.providers.contract import ID, OTHER
from tests.providers.ec2 import refused
from tests.providers.s3 import FakeS3
from worker_image.agent import FetchError, ModelFiles, read_settings

PLAIN = Order("aws", type="g6e.xlarge", zone="eu-central-1a")
SCRIPT = b"""#!/bin/bash
url='@VESTIBULE_MODEL@' sha256='@VESTIBULE_MODEL_SHA256@'
printf '%s\\n' "VESTIBULE_MODEL=$url" "VESTIBULE_MODEL_SHA256=$sha256"
"""


def _archive(content: bytes = b"weights") -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        member = tarfile.TarInfo("model.safetensors")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return raw.getvalue()


ARCHIVE = _archive()
MODEL = {
    "model_archive": "s3://models/qwen/3-8b.tar",
    "model_sha256": hashlib.sha256(ARCHIVE).hexdigest(),
}


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOURS")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-ours")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def world() -> Iterator[Ec2World]:
    made = Ec2World()
    yield made
    made.close()


@pytest.fixture
async def s3() -> AsyncIterator[FakeS3]:
    made = FakeS3(REGION, {"AKIAOURS": "of-ours"}, {"models/qwen/3-8b.tar": ARCHIVE})
    async with made.running():
        yield made


def of(world: Ec2World, script: bytes = SCRIPT, **more: Any) -> Ec2:
    return world.of("ours", script=script, **MODEL | more)


def said(world: Ec2World) -> str:
    """The user data of the last launch."""
    given: str = world.wire.words["RunInstances"]["UserData"]
    return base64.b64decode(given).decode()


def booted(world: Ec2World) -> dict[str, str]:
    """The agent's settings, as the user data of the last launch says them."""
    ended = subprocess.run(
        ["bash"], input=said(world), text=True, capture_output=True, check=True, timeout=10
    )
    return dict(line.split("=", 1) for line in ended.stdout.splitlines())


async def _fetch(folder: Path, model: dict[str, str]) -> Path:
    given = {"VESTIBULE_WORKER_TOKEN": "t", "VESTIBULE_STATE_DIR": str(folder), **model}
    async with ClientSession() as session:
        files = ModelFiles(session, read_settings([], given), lambda _: None)
        return Path((await files.fetch())[0])


# --- what the machine does with it --------------------------------------------------------------


async def test_the_agent_fetches_the_archive_and_checks_it(
    world: Ec2World, s3: FakeS3, tmp_path: Path
) -> None:
    ec2 = of(world, model_endpoint_url=s3.url)
    await ec2.launch(ID, PLAIN)
    model = booted(world)
    folder = await _fetch(tmp_path / "good", model)
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    s3.objects = {"models/qwen/3-8b.tar": _archive(b"w0rms")}
    with pytest.raises(FetchError, match="SHA-256"):
        await _fetch(tmp_path / "bad", model)
    assert not list((tmp_path / "bad").rglob("*.safetensors"))


async def test_it_opens_one_object_for_some_time(
    world: Ec2World, s3: FakeS3, tmp_path: Path
) -> None:
    ec2 = of(world, model_endpoint_url=s3.url, model_holds=1_200)
    await ec2.launch(ID, PLAIN)
    model = booted(world)
    url = model["VESTIBULE_MODEL"]
    assert f"x-vestibule-instance={ID}&" in url  # in S3's access log
    altered = (
        url[:-1] + ("1" if url.endswith("0") else "0"),
        url.replace("3-8b", "3-9b"),
        url.replace("Expires=2100", "Expires=9999"),
        url.replace(ID, OTHER),
    )
    for each in altered:
        assert each != url
        with pytest.raises(FetchError, match="answers 403"):
            await _fetch(tmp_path, {"VESTIBULE_MODEL": each})
        assert s3.said[-1] == "another signature"
    s3.ahead_s = 1_199
    await _fetch(tmp_path / "late", model)
    s3.ahead_s = 1_200 + SAID_AGAIN_S + 1
    with pytest.raises(FetchError, match="answers 403"):
        await _fetch(tmp_path / "later", model)
    assert s3.said[-1] == "expired"


async def test_a_bucket_may_lie_in_another_region(
    world: Ec2World, s3: FakeS3, tmp_path: Path
) -> None:
    s3.region = "us-east-2"
    await of(world, model_endpoint_url=s3.url).launch(ID, PLAIN)
    with pytest.raises(FetchError):
        await _fetch(tmp_path, booted(world))
    assert s3.said == [f"signed for {REGION}"]
    await of(world, model_endpoint_url=s3.url, model_region=s3.region).launch(OTHER, PLAIN)
    await _fetch(tmp_path, booted(world))


async def test_the_address_is_the_regions_as_a_signature_survives_no_redirect(
    world: Ec2World,
) -> None:
    await of(world).launch(ID, PLAIN)
    url = booted(world)["VESTIBULE_MODEL"]
    assert url.startswith("https://models.s3.eu-central-1.amazonaws.com/qwen/3-8b.tar?")
    await of(world, model_archive="s3://our.models/m.tar").launch(OTHER, PLAIN)
    url = booted(world)["VESTIBULE_MODEL"]  # AWS' certificate covers no name with a dot
    assert url.startswith("https://s3.eu-central-1.amazonaws.com/our.models/m.tar?")


async def test_moto_gives_what_is_asked_for_with_the_url(
    world: Ec2World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moto reads no signature and no expiry; only who has none at all is sent away."""
    with cloud.running() as url:
        client = boto3.client("s3", REGION, endpoint_url=url)
        client.create_bucket(
            Bucket="models", CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        client.put_object(Bucket="models", Key="qwen/3-8b.tar", Body=ARCHIVE)
        await of(world, model_endpoint_url=url).launch(ID, PLAIN)
        signed = booted(world)["VESTIBULE_MODEL"]
        got = await asyncio.to_thread(requests.get, signed, timeout=10)
        assert got.content == ARCHIVE
        bare = await asyncio.to_thread(requests.get, signed.partition("?")[0], timeout=10)
        assert bare.status_code == 403


# --- one machine for each launch ----------------------------------------------------------------


async def test_a_launch_said_again_has_the_same_url_and_another_one_its_own(
    world: Ec2World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ec2 = of(world)
    world.cloud.lag_ms = 10_000_000  # nothing is found by its tag: the token alone protects
    await ec2.launch(ID, PLAIN)
    first = said(world)
    world.clock.advance_ms((SAID_AGAIN_S - 1) * 1000)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANEWER")  # as a role's are renewed
    await ec2.launch(ID, PLAIN)
    assert said(world) == first
    await ec2.launch(OTHER, PLAIN)
    assert said(world) != first
    assert len(world.cloud.vms) == 2


async def test_another_scheduler_signs_anew_and_doubles_nothing(
    world: Ec2World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EC2 knows the token, with other words: so the machine is there, and is found by its tag."""
    world.cloud.lag_ms = 60_000
    with world.lost_reply(), pytest.raises(Unclear):
        await of(world).launch(ID, PLAIN)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATHEIRS")
    other = of(world)
    with pytest.raises(Unclear, match="IdempotentParameterMismatch"):
        await other.launch(ID, PLAIN)
    world.clock.advance_ms(60_000)
    assert (await other.launch(ID, PLAIN)).instance_id == ID
    assert len(world.cloud.vms) == 1


# --- where it stands, and where it does not -----------------------------------------------------


async def test_the_url_is_in_the_user_data_and_nowhere_else(
    world: Ec2World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("botocore", "boto3", "urllib3", "asyncio"):
        caplog.set_level(logging.INFO, name)
    ec2, store = of(world), PlainFleetStore(world.clock.now_ms())
    scheduler = Reconciler(ec2, store, PlainWorkers(), world.clock)
    commands = Commands(store, ["aws"])
    wish = Command("c-1", Kind.PROVISION, world.clock.now_ms(), "ops", (ID,), order=PLAIN)
    await store.ask(wish)
    urls: set[str] = set()

    async def step(fault: str) -> None:
        world.clock.advance_ms(61_000)
        store.ms = world.clock.now_ms()
        await commands.tick(store.lease("commands"))
        with world.wire.breaking(fault, "RunInstances"):
            await scheduler.tick(store.lease("instances"))
        urls.add(booted(world)["VESTIBULE_MODEL"])

    for fault in ("down", "InternalError", "RequestLimitExceeded", "lost", ""):
        await step(fault)
    for _ in range(3):
        await step("")
    (it,) = store.kept.values()
    assert it.state == "booting"
    (machine,) = await ec2.machines()
    (vm,) = world.cloud.vms.values()
    told = [it, machine, store.history, vm.tags, ec2, *ec2.__dict__.values()]
    texts = [caplog.text, *map(repr, told)]
    assert caplog.records
    for url in urls:
        _, _, signature = url.partition("X-Amz-Signature=")
        assert len(signature) == 64
        assert not [text for text in texts if signature in text]


async def test_an_error_that_quotes_it_is_told_without_it(
    world: Ec2World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def told(code: str) -> str:
        def quotes(code_: str) -> Any:
            url = booted(world)["VESTIBULE_MODEL"]
            return refused(code_, f"Value '{url}' is not good")

        monkeypatch.setattr("tests.providers.ec2.refused", quotes)
        with world.wire.breaking(code, "RunInstances"), pytest.raises((Refused, Unclear)) as error:
            await of(world).launch(ID, PLAIN)
        return str(error.value)

    for code in ("InvalidParameterValue", "Bizarre"):
        words = await told(code)
        assert "/qwen/3-8b.tar?[removed]' is not good" in words
        assert "X-Amz" not in words


async def test_an_order_with_a_model_of_its_own_gets_no_url(world: Ec2World) -> None:
    await of(world).launch(ID, ORDER)
    assert booted(world) == {"VESTIBULE_MODEL": "", "VESTIBULE_MODEL_SHA256": ""}


# --- the user data ------------------------------------------------------------------------------


async def test_a_launch_templates_user_data_is_filled_in(world: Ec2World) -> None:
    plain: dict[str, Any] = {"image": "", "user_data": "", "instance_profile": ""}
    plain |= {"security_groups": (), "disk": 0, "data_disk": 0}
    ec2 = of(world, b"", launch_template="lt-0a", **plain)
    with pytest.raises(Refused, match="user data: must say @VESTIBULE_MODEL@ and"):
        await ec2.launch(ID, PLAIN)
    world.cloud.template = SCRIPT
    await ec2.launch(ID, PLAIN)
    assert booted(world)["VESTIBULE_MODEL"].startswith("https://models.s3.")
    asked = world.wire.words["DescribeLaunchTemplateVersions"]
    assert asked == {"LaunchTemplateId": "lt-0a", "Versions": ["$Default"]}


async def test_what_is_too_long_with_its_url_is_not_launched(world: Ec2World) -> None:
    with pytest.raises(Refused, match="PROVIDER_INVALID_ORDER: user data: 16384 bytes"):
        await of(world, SCRIPT + b"#" * 16_000).launch(ID, PLAIN)
    assert not world.cloud.vms


def test_a_file_that_leaves_no_room_for_it_is_found_at_the_start(tmp_path: Path) -> None:
    deployment = Deployment("ours", "http://127.0.0.1:1", "token", tmp_path, tmp_path)
    (tmp_path / "worker.sh").write_bytes(SCRIPT.replace(b"_SHA256", b""))
    with pytest.raises(ValueError, match="user_data: must say @VESTIBULE_MODEL_SHA256@"):
        open("aws", settings(**MODEL), deployment)


# --- credentials --------------------------------------------------------------------------------


def _temporary(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    def get_credentials(_: boto3.Session) -> RefreshableCredentials:
        end = datetime.now(UTC) + timedelta(seconds=seconds)
        return RefreshableCredentials("AKIAOURS", "of-ours", "token", end, _no_newer, "role")

    monkeypatch.setattr(boto3.Session, "get_credentials", get_credentials)


def _no_newer() -> dict[str, str]:
    raise AssertionError


async def test_no_machine_is_launched_whose_url_ends_too_early(
    world: Ec2World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _temporary(monkeypatch, 3_500)
    with pytest.raises(Refused, match=r"PROVIDER_DENIED: model_archive: .* \(3600 s\)"):
        await of(world).launch(ID, PLAIN)
    assert not world.cloud.vms
    _temporary(monkeypatch, 3_700)
    await of(world).launch(ID, PLAIN)
    assert world.cloud.vms


async def test_without_credentials_nothing_follows(
    world: Ec2World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boto3.Session, "get_credentials", lambda _: None)
    with pytest.raises(Unclear, match="NoCredentialsError"):
        await of(world).launch(ID, PLAIN)


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"model_archive": "https://models/m.tar"}, "model_archive: must be s3://"),
        ({"model_archive": "s3://models/m.zip"}, "model_archive: must be s3://"),
        ({"model_archive": "s3://models/a b/m.tar"}, "model_archive: must be s3://"),
        ({"model_sha256": ""}, "model_sha256: must be the 64"),
        ({"model_holds": 599}, "model_holds: must be from 600"),
        ({"model_holds": URL_S_MAX - SAID_AGAIN_S + 1}, "model_holds: must be from 600 to 603900"),
        ({"model_archive": ""}, "model_sha256: needs a model_archive"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(more: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        settings(**MODEL | more)
    assert settings(**MODEL, model_holds=URL_S_MAX - SAID_AGAIN_S)

"""The model's files: fetched, gone on with, checked, unpacked, kept."""

import hashlib
import io
import json
import random
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from tests.worker.processes import GOOD_VLLM, agent, stand_in_for_vllm
from tests.worker.stand_ins import Admission
from worker_image import agent as agent_module
from worker_image.agent import FetchError, ModelFiles, SettingsError, read_settings

TOKEN = {"VESTIBULE_WORKER_TOKEN": "t"}
SAFE = bytes(range(256)) * 1000


def _tar(files: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return raw.getvalue()


def _named(folder: Path, pattern: str) -> list[Path]:
    return list(folder.rglob(pattern))


@dataclass
class Bucket:
    """Serves files as S3 does: with ranges and strong tags; can break off."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: int | None = None
    url: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    async def get(self, request: web.Request) -> web.StreamResponse:
        wanted = request.headers.get("Range")
        self.asked.append((request.path_qs, wanted))
        content = self.files.get(request.path.strip("/"))
        if content is None:
            raise web.HTTPForbidden
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        begin = 0
        if wanted and request.headers.get("If-Range") == tag:
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
        part = content[begin:]
        response = web.StreamResponse(status=206 if begin else 200, headers={"ETag": tag})
        response.content_length = len(part)
        await response.prepare(request)
        if self.cut_after is not None:
            await response.write(part[: self.cut_after])
            assert request.transport
            request.transport.close()
            return response
        await response.write(part)
        return response


@pytest.fixture
async def bucket() -> AsyncIterator[Bucket]:
    served = Bucket()
    app = web.Application()
    app.router.add_get("/{name:.*}", served.get)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


async def _fetch(folder: Path, model: str, **environment: str) -> tuple[list[str], list[int]]:
    """The words for vLLM, and the percents that were told."""
    given = {**TOKEN, "VESTIBULE_STATE_DIR": str(folder), "VESTIBULE_MODEL": model, **environment}
    told: list[int] = []
    async with ClientSession() as session:
        files = ModelFiles(session, read_settings([], given), lambda n: told.append(n or 0))
        return await files.fetch(), told


async def test_several_files_become_one_folder_and_are_not_fetched_twice(
    tmp_path: Path, bucket: Bucket
) -> None:
    bucket.files = {"m/model.safetensors": SAFE, "m/config.json": b"{}"}
    model = f"{bucket.url}/m/model.safetensors?sig=1 {bucket.url}/m/config.json?sig=2"
    words, told = await _fetch(tmp_path, model)
    folder = Path(words[0])
    assert words[1:] == ["--served-model-name", "model"]
    assert (folder / "model.safetensors").read_bytes() == SAFE
    assert (folder / "config.json").read_bytes() == b"{}"
    assert told[-1] == 100
    assert told == sorted(told)
    again, _ = await _fetch(tmp_path, model.replace("sig=", "sig=9"))  # presigned anew
    assert again == words
    assert len(bucket.asked) == 2


async def test_what_broke_off_goes_on_where_it_was(tmp_path: Path, bucket: Bucket) -> None:
    bucket.files = {"model.safetensors": SAFE}
    url = f"{bucket.url}/model.safetensors"
    digest = hashlib.sha256(SAFE).hexdigest()
    bucket.cut_after = 100_000
    with pytest.raises(FetchError, match="model.safetensors (broke off|ended)"):
        await _fetch(tmp_path, url, VESTIBULE_MODEL_SHA256=digest)
    bucket.cut_after = None
    words, _ = await _fetch(tmp_path, url, VESTIBULE_MODEL_SHA256=digest)
    assert (Path(words[0]) / "model.safetensors").read_bytes() == SAFE
    assert [each for _, each in bucket.asked] == [None, "bytes=100000-"]


async def test_another_version_is_fetched_from_its_beginning(
    tmp_path: Path, bucket: Bucket
) -> None:
    bucket.files = {"model.safetensors": SAFE}
    bucket.cut_after = 100_000
    with pytest.raises(FetchError):
        await _fetch(tmp_path, f"{bucket.url}/model.safetensors")
    bucket.files, bucket.cut_after = {"model.safetensors": SAFE[::-1]}, None
    words, _ = await _fetch(tmp_path, f"{bucket.url}/model.safetensors")
    assert (Path(words[0]) / "model.safetensors").read_bytes() == SAFE[::-1]


async def test_wrong_bytes_are_not_served(tmp_path: Path, bucket: Bucket) -> None:
    bucket.files = {"model.safetensors": SAFE}
    with pytest.raises(FetchError, match=f"has SHA-256 [0-9a-f]{{64}}, not {'0' * 64}"):
        await _fetch(tmp_path, f"{bucket.url}/model.safetensors", VESTIBULE_MODEL_SHA256="0" * 64)
    assert not _named(tmp_path, "model.safetensors")


@pytest.mark.parametrize("inner", ["", "folder/"])
async def test_a_tar_is_unpacked(tmp_path: Path, bucket: Bucket, inner: str) -> None:
    bucket.files = {"m.tar.gz": _tar({f"{inner}config.json": b"{}", f"{inner}a": SAFE})}
    words, _ = await _fetch(tmp_path, f"{bucket.url}/m.tar.gz")
    assert words[1:] == ["--served-model-name", "m"]
    assert (Path(words[0]) / "config.json").read_bytes() == b"{}"
    assert (Path(words[0]) / "a").read_bytes() == SAFE


async def test_a_tar_that_leads_away_is_refused(tmp_path: Path, bucket: Bucket) -> None:
    bucket.files = {"m.tar.gz": _tar({"../escaped": b"x"})}
    with pytest.raises(FetchError, match=r"m\.tar\.gz cannot be unpacked"):
        await _fetch(tmp_path, f"{bucket.url}/m.tar.gz")
    assert not _named(tmp_path, "escaped")


async def test_a_tar_that_was_damaged_is_refused_and_fetched_again(
    tmp_path: Path, bucket: Bucket
) -> None:
    whole = _tar({"config.json": b"{}", "a": random.Random(1).randbytes(10_000)})
    for damaged in (whole[:5000], whole[:100] + bytes(1000) + whole[1100:], b"", b"no tar"):
        bucket.files = {"m.tar.gz": damaged}
        with pytest.raises(FetchError, match=r"m\.tar\.gz cannot be unpacked"):
            await _fetch(tmp_path, f"{bucket.url}/m.tar.gz")
    bucket.files = {"m.tar.gz": whole}
    words, _ = await _fetch(tmp_path, f"{bucket.url}/m.tar.gz")
    assert (Path(words[0]) / "config.json").exists()


async def test_a_tar_with_a_name_that_no_disk_takes_is_refused(
    tmp_path: Path, bucket: Bucket
) -> None:
    bucket.files = {"m.tar.gz": _tar({"bad\0\xe9": b"x"})}
    with pytest.raises(FetchError, match=r"m\.tar\.gz cannot be unpacked: ValueError"):
        await _fetch(tmp_path, f"{bucket.url}/m.tar.gz")


async def test_a_folder_may_hold_one_of_its_own_name(tmp_path: Path, bucket: Bucket) -> None:
    bucket.files = {"m.tar.gz": _tar({"m/m": b"x", "m/config.json": b"{}"})}
    words, _ = await _fetch(tmp_path, f"{bucket.url}/m.tar.gz")
    assert (Path(words[0]) / "m").read_bytes() == b"x"
    assert (Path(words[0]) / "config.json").exists()


async def test_a_full_disk_is_told_before_anything_is_fetched(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.files = {"model.safetensors": SAFE}
    monkeypatch.setattr(agent_module, "DISK_RESERVE_BYTES", 2**60)
    with pytest.raises(FetchError, match="MiB free, 0 MiB are needed"):
        await _fetch(tmp_path, f"{bucket.url}/model.safetensors")
    assert not _named(tmp_path, "*.part")


async def test_an_address_that_refuses_is_named_without_its_signature(
    tmp_path: Path, bucket: Bucket
) -> None:
    with pytest.raises(FetchError) as caught:
        await _fetch(tmp_path, f"{bucket.url}/model.safetensors?X-Amz-Signature=abc")
    assert str(caught.value) == "model.safetensors: its address answers 403"
    with pytest.raises(FetchError, match="does not end with a file's name"):
        await _fetch(tmp_path, f"{bucket.url}/?X-Amz-Signature=abc")
    with pytest.raises(FetchError, match=r"^https://a\.example/ does not end"):
        await _fetch(tmp_path, "https://ada:hush@a.example/")


async def test_a_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="there is no such folder"):
        await _fetch(tmp_path, str(tmp_path / "none"))
    assert await _fetch(tmp_path, str(tmp_path)) == ([str(tmp_path)], [])


def test_each_address_has_its_hash() -> None:
    given = {**TOKEN, "VESTIBULE_MODEL": "https://a/b https://a/c"}
    with pytest.raises(SettingsError, match="VESTIBULE_MODEL_SHA256 must be"):
        read_settings([], {**given, "VESTIBULE_MODEL_SHA256": "0" * 64})
    assert read_settings([], {**given, "VESTIBULE_MODEL_SHA256": f"{'0' * 64} {'1' * 64}"})


@pytest.mark.parametrize(
    "model", ["https://a/1/m.tar https://a/2/m.tar", "https://[::1/m.tar", "https://a:b:c/m.tar"]
)
def test_addresses_that_cannot_be_fetched_are_named_at_the_start(model: str) -> None:
    with pytest.raises(SettingsError, match="VESTIBULE_MODEL must be addresses"):
        read_settings([], {**TOKEN, "VESTIBULE_MODEL": model})


FAKE_HUB = """
import os, pathlib
class constants:
    HF_HUB_CACHE = os.environ["FAKE_HUB"]
class File:
    def __init__(self, rfilename, size):
        self.rfilename, self.size = rfilename, size
class HfApi:
    def model_info(self, name, files_metadata, timeout):
        if name == "no/model":
            raise RuntimeError("404: no such model, hf_abcdefghijkl")
        self.siblings = [File("model.safetensors", 10), File("old.bin", 10**18), File("a.json", 2)]
        return self
def snapshot_download(name, allow_patterns):
    if name == "bad/model":
        raise OSError("broken off")
    folder = pathlib.Path(constants.HF_HUB_CACHE, "models--" + name.replace("/", "--"))
    folder.mkdir(parents=True)
    (folder / "said").write_text(",".join(sorted(allow_patterns)))
"""


def _with_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (folder / "huggingface_hub.py").write_text(FAKE_HUB)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("FAKE_HUB", str(folder / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return folder / "hub"


async def test_the_hub_is_asked_for_what_vllm_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = _with_hub(tmp_path, monkeypatch)
    assert (await _fetch(tmp_path, "some/model"))[0] == ["some/model"]
    assert (hub / "models--some--model" / "said").read_text() == "a.json,model.safetensors"


async def test_a_model_the_hub_does_not_tell_of_is_left_to_vllm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be on the disk from an earlier day, and the way to the hub be gone."""
    hub = _with_hub(tmp_path, monkeypatch)
    assert (await _fetch(tmp_path, "no/model"))[0] == ["no/model"]
    assert "the hub cannot be asked" in caplog.text
    assert not hub.exists()


async def test_a_download_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_hub(tmp_path, monkeypatch)
    with pytest.raises(FetchError, match="the hub: OSError: broken off"):
        await _fetch(tmp_path, "bad/model")


async def test_what_does_not_fit_is_not_fetched_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = _with_hub(tmp_path, monkeypatch)
    monkeypatch.setattr(agent_module, "DISK_RESERVE_BYTES", 2**60)
    with pytest.raises(FetchError, match="MiB free"):
        await _fetch(tmp_path, "some/model")
    assert not hub.exists()


async def test_offline_the_hub_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = _with_hub(tmp_path, monkeypatch)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert (await _fetch(tmp_path, "some/model"))[0] == ["some/model"]
    assert not hub.exists()


async def test_a_fetch_that_fails_is_a_reason_and_is_tried_again(
    tmp_path: Path, admission: Admission, bucket: Bucket
) -> None:
    admission.heartbeat_interval = 0.1
    vllm = stand_in_for_vllm(tmp_path, GOOD_VLLM)
    url = f"{bucket.url}/model.safetensors?X-Amz-Signature=abc"
    async with agent(
        tmp_path,
        admission_url=admission.url,
        words=("--model", url),
        VESTIBULE_VLLM=str(vllm),
        VESTIBULE_STATE_DIR=str(tmp_path / "state"),
    ) as running:
        await admission.until(
            lambda: any("answers 403" in (b.body["reason"] or "") for b in admission.heartbeats)
        )
        bucket.files = {"model.safetensors": SAFE}
        await admission.until_ready()
        assert json.loads((await running.get("/info"))[1])["vllm_restarts"] == 1
        _, written = await running.child.stop()
    assert "abc" not in written
    assert "'--served-model-name', 'model'" in written

"""``vestibule doctor``: it sees what is wrong, says it, and leaves nothing behind."""

import argparse
import asyncio
import json
import secrets
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from admission.clock import ManualClock
from infra.doctor import command, room
from infra.doctor.deployment import deployment
from infra.doctor.examination import Verdict, examine
from infra.doctor.report import told
from infra.doctor.rule import Rule
from infra.doctor.rules import CHAPTERS, RULES
from infra.errors import CommandError
from tests.api.calls import caller_of
from tests.api.conftest import served_at
from tests.conftest import DEADLINE_S, Service
from tests.contract.liar import Answer, Lie, lying
from tests.infra.conftest import ROOT, clean_environment

KEYS = {"admin_key": "admin-key", "service_key": "service-key"}


def _rules(*names: str) -> list[Rule]:
    found = [rule for rule in RULES if rule.name in names]
    assert len(found) == len(names)
    return found


async def _asked(url: str, rules: Sequence[Rule]) -> list[Verdict]:
    async with deployment(url, **KEYS) as target:
        await target.look()
        return (await examine(target, rules)).verdicts


async def _left_behind(service: Service) -> list[str]:
    """Names of pools, keys, projects, users with a class and workers that are still there."""
    admin = caller_of(service, service.admin_key)
    found = [pool["pool"] for pool in (await admin("GET", "/admin/pools")).json["pools"]]
    for path, field in (("keys", "label"), ("projects", "id"), ("workers", "worker_id")):
        found += [each[field] for each in (await admin("GET", f"/admin/{path}")).json[path]]
    found += (await admin("GET", "/admin/priorities")).json["priorities"]
    return [name for name in found if name != "default"]


def _a_new_ticket_each_time(answer: Answer) -> None:
    if answer.call.startswith("POST /queue/join/") and answer.status == 200:
        answer.body["ticket_id"] = secrets.token_hex(16)


def _all_are_first(answer: Answer) -> None:
    if answer.status == 200 and answer.body.get("position"):
        answer.body["position"] = 1


def _all_are_in(answer: Answer) -> None:
    if answer.status == 200 and answer.body.get("status") == "waiting":
        answer.body["status"] = "active"


def _a_guess_of_0(answer: Answer) -> None:
    if answer.status == 200 and "estimated_wait" in answer.body:
        answer.body["estimated_wait"] = answer.body["estimated_wait"] or 0


def _no_check_of_keys(answer: Answer) -> None:
    if answer.status == 401 and "/heartbeat/" in answer.call:
        answer.status, answer.body = 200, {}


def _no_field_is_named(answer: Answer) -> None:
    if answer.status == 422:
        answer.body.pop("errors", None)


def _no_problem(answer: Answer) -> None:
    if answer.status == 409:
        answer.headers["Content-Type"] = "application/json"


def _nobody_is_told_when(answer: Answer) -> None:
    answer.headers.pop("Retry-After", None)


def _one_id_for_all(answer: Answer) -> None:
    answer.headers["X-Request-Id"] = "one"


def _the_last_first(answer: Answer) -> None:
    if answer.call == "GET /queue/status" and answer.status == 200:
        answer.body["queue_items"].reverse()


def _all_origins(answer: Answer) -> None:
    answer.headers["Access-Control-Allow-Origin"] = "*"


def _another_shape(answer: Answer) -> None:
    if answer.status == 200 and "ticket_id" in answer.body:
        del answer.body["ticket_id"]


def _a_tick_without_facts(answer: Answer) -> None:
    if answer.call == "GET /admin/ticks":
        answer.body["ticks"].append({"name": "expire"})


LIES: dict[str, Lie] = {
    "joining again keeps the ticket and the place": _a_new_ticket_each_time,
    "one user joining in parallel has one ticket": _a_new_ticket_each_time,
    "places are unique and dense": _all_are_first,
    "fifty joins at once never exceed capacity": _all_are_in,
    "an estimate that cannot be known is null": _a_guess_of_0,
    "without a key nothing is told": _no_check_of_keys,
    "a wrong field of a body is named": _no_field_is_named,
    "who waits cannot confirm": _no_problem,
    "a full queue says when to try again": _nobody_is_told_when,
    "every answer has a request id": _one_id_for_all,
    "the queue is listed page by page": _the_last_first,
    "pages of strangers may not call": _all_origins,
    "confirm starts the session once": _another_shape,
    "the ticks are told": _a_tick_without_facts,
    "a client has its whole turn by polls": _another_shape,
}


@pytest.mark.parametrize("name", LIES)
async def test_a_broken_rule_is_seen_and_said(service: Service, name: str) -> None:
    async with lying(service.url, LIES[name]) as url:
        (verdict,) = await _asked(url, _rules(name))
    assert verdict.outcome == "broken"
    lines = list(told(verdict))
    assert lines[0].startswith("✗")
    assert lines[0].endswith(name)
    assert [line.split()[0] for line in lines[1:]] == ["rule", "after", "expected", "seen"]
    assert await _left_behind(service) == []


async def test_no_key_and_no_token_is_shown(service: Service) -> None:
    seen: list[str] = []

    def lie(answer: Answer) -> None:
        if isinstance(answer.body, dict):
            seen.extend(str(answer.body[name]) for name in ("token", "key") if name in answer.body)
            if "/join/" in answer.call or answer.call == "POST /admin/keys":
                answer.status = 418

    async with lying(service.url, lie) as url:
        verdicts = await _asked(
            url, _rules("a keys text is told once", "auto confirm makes a session at once")
        )
    assert [verdict.outcome for verdict in verdicts] == ["broken"] * 2
    assert len(seen) >= 2
    shown = "".join(line for verdict in verdicts for line in told(verdict))
    assert "418" in shown
    assert not [secret for secret in seen if secret in shown]


@pytest.mark.parametrize(
    "after", [2, 40, 150, *(pytest.param(n, marks=pytest.mark.soak) for n in range(10, 180, 13))]
)
async def test_told_to_stop_it_leaves_nothing_behind(service: Service, after: int) -> None:
    """At the call of this number; deadlines, which the test's clock never reaches, are left out."""
    rules = [*CHAPTERS["keys"], *CHAPTERS["workers"], *CHAPTERS["turns"], *CHAPTERS["pools"]]
    count = 0

    def lie(_: Answer) -> None:
        nonlocal count
        count += 1
        if count == after:
            task.cancel()

    async with lying(service.url, lie) as url, deployment(url, **KEYS) as target:
        task = asyncio.create_task(examine(target, rules))
        with pytest.raises(asyncio.CancelledError):
            await task
    assert count > after
    assert await _left_behind(service) == []


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What clears up is asked again at once."""
    monkeypatch.setattr(room, "PAUSES_S", (0.0,) * len(room.PAUSES_S))


async def test_a_busy_deployment_is_left_clean(service: Service, soon: None) -> None:
    """The first answers to whatever makes room and takes it away are 503."""
    asked: Counter[str] = Counter()

    def lie(answer: Answer) -> None:
        asked[answer.call] += 1
        if answer.call.startswith(("GET /admin/", "PUT ", "DELETE ")) and asked[answer.call] < 3:
            answer.status = 503

    async with lying(service.url, lie) as url, deployment(url, **KEYS) as target:
        done = await examine(target, _rules("a keys text is told once"))
    assert done.left == []
    assert await _left_behind(service) == []


@pytest.mark.parametrize("path", ["/admin/keys", "/admin/pools"])
async def test_who_does_not_list_what_was_made_is_told_of(
    service: Service, soon: None, path: str
) -> None:
    def lie(answer: Answer) -> None:
        if answer.call == f"GET {path}":
            answer.status, answer.body = 200, {}

    async with lying(service.url, lie) as url, deployment(url, **KEYS) as target:
        done = await examine(target, _rules("a keys text is told once"))
    broken = [verdict.rule.name for verdict in done.of("broken")]
    if path == "/admin/keys":
        assert (broken, done.left) == (["a keys text is told once"], [])
    else:
        assert (broken, len(done.left), done.good) == ([], 1, False)


async def test_what_cannot_be_taken_away_is_said(service: Service, soon: None) -> None:
    def lie(answer: Answer) -> None:
        if answer.call.startswith("DELETE /admin/pools/"):
            answer.status = 500

    async with lying(service.url, lie) as url, deployment(url, **KEYS) as target:
        done = await examine(target, _rules("who waits cannot confirm"))
    assert [verdict.outcome for verdict in done.verdicts] == ["held"]
    assert len(done.left) == 1
    assert done.left[0].startswith("/admin/pools/contract-")
    assert not done.good


async def test_where_nobody_is_checked_that_is_said(
    valkey: str, redis: Redis, clock: ManualClock
) -> None:
    async with served_at(valkey, clock, VESTIBULE_AUTH="off") as service:
        verdicts = await _asked(service.url, CHAPTERS["who may call"][:1])
    assert [verdict.outcome for verdict in verdicts] == ["skipped"]
    assert "VESTIBULE_AUTH=off" in next(told(verdicts[0]))


def _words(url: str, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return parser.parse_args(["--contract", url, *more])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"admin_key": "another"}, "does not accept the admin key: 401"),
        ({"admin_key": "service-key"}, "does not accept the admin key: 403"),
        ({"service_key": "another"}, "does not accept the service key: 401"),
        ({"service_key": "admin-key"}, "the service key is an admin's"),
    ],
)
async def test_a_wrong_key_is_named(service: Service, keys: dict[str, str], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        await command.examined(_words(service.url), {**KEYS, **keys})


async def test_who_is_no_vestibule_is_said(service: Service) -> None:
    def lie(answer: Answer) -> None:
        answer.body = "hello"

    async with lying(service.url, lie) as url:
        with pytest.raises(CommandError, match="is no Vestibule: GET /healthz gave 200"):
            await command.examined(_words(url), KEYS)
    with pytest.raises(CommandError, match="no answer: cannot connect to 127.0.0.1:"):
        await command.examined(_words(url), KEYS)


@pytest.mark.parametrize("body", [{}, {"pools": None}, {"pools": [{}]}])
async def test_who_says_yes_to_everything_is_no_vestibule(service: Service, body: object) -> None:
    def lie(answer: Answer) -> None:
        answer.status, answer.body = 200, body

    async with lying(service.url, lie) as url:
        with pytest.raises(CommandError, match="is no Vestibule: GET /admin/pools gave 200"):
            await command.examined(_words(url), KEYS)


async def test_who_sends_elsewhere_says_where(service: Service) -> None:
    def lie(answer: Answer) -> None:
        answer.status, answer.headers["Location"] = 301, "https://queue.example/healthz"

    async with lying(service.url, lie) as url:
        with pytest.raises(CommandError, match="gave 301, to https://queue.example/healthz"):
            await command.examined(_words(url), KEYS)


async def test_where_people_wait_it_must_be_meant(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    for user in ("ada", "bob"):
        await caller_of(service)("POST", f"/queue/join/{user}")
    with pytest.raises(CommandError, match="1 wait at .*--yes-really"):
        await command.examined(_words(service.url), KEYS)
    words = _words(service.url, "--yes-really", "--only", "who waits cannot confirm")
    assert await command.examined(words, KEYS) == 0
    assert capsys.readouterr().out.endswith("1 held, 0 broken, 0 skipped\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--contract", "ftp://x"], "--contract: ftp://x is no http:// or https:// URL"),
        (["--contract", "http://x:99999"], "--contract: http://x:99999 is no http://"),
        (["--contract", "http://[::1"], r"--contract: http://\[::1 is no http://"),
        (["--only", "no such rule"], "--only: no rule's name holds 'no such rule'"),
        (["--service-key", "a b"], "--service-key: not a key"),
        (["--admin-key", ""], "the admin key is needed: --admin-key, VESTIBULE_ADMIN_KEY"),
    ],
)
def test_wrong_words_are_named(
    monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.setenv("VESTIBULE_STATE_DIR", "no-such-folder")
    given = ["--admin-key", "a", "--service-key", "b", *words]
    with pytest.raises(CommandError, match=said):
        command.run(_words("http://127.0.0.1:1", *given))


@asynccontextmanager
async def _process(url: str, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command, for as long as a busy machine may need."""
    settings = {"VESTIBULE_ADMIN_KEY": "admin-key", "VESTIBULE_SERVICE_KEY": "service-key"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "infra.cli", "doctor", "--contract", url, *words),
        cwd=ROOT,
        env={**clean_environment(), **settings, "VESTIBULE_STATE_DIR": "no-such-folder"},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(4 * DEADLINE_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_command_tells_programs_too(service: Service) -> None:
    async with (
        lying(service.url, _no_problem) as url,
        _process(url, "--json", "--only", "confirm") as process,
    ):
        said, _ = await process.communicate()
    report = json.loads(said)
    assert process.returncode == 1
    assert (report["ok"], report["url"], report["left"]) == (False, url, [])
    assert report["held"] > 0
    assert len(report["rules"]) == report["held"] + report["broken"]
    (one,) = [rule for rule in report["rules"] if rule["name"] == "who waits cannot confirm"]
    assert (one["outcome"], one["chapter"]) == ("broken", "turns")
    assert one["expected"] == "409 problem+json, code still_waiting"


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.soak)]
)
async def test_a_signal_ends_it_and_nothing_is_left(
    service: Service, number: signal.Signals
) -> None:
    reached = asyncio.Event()

    def lie(answer: Answer) -> None:
        if "/queue/join/" in answer.call:
            reached.set()

    async with lying(service.url, lie) as url, _process(url) as process:
        await reached.wait()
        process.send_signal(number)
        await process.communicate()
    assert process.returncode == 128 + number
    assert await _left_behind(service) == []

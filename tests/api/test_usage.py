"""Projects, limits and what was used, over HTTP: for admins."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from admission.accounting.ledger import Ledger
from admission.accounting.limits import Limits
from tests.accounting.conftest import AT_MS, DAY_MS, HOUR_MS, record
from tests.api.calls import Caller, caller_of, until
from tests.api.conftest import Served
from tests.conftest import Service

NONE = dict.fromkeys(Limits().__struct_fields__)
DAY = "2026-11-18"
ROUTES = [
    ("GET", "/admin/limits"),
    ("PUT", "/admin/limits/user"),
    ("DELETE", "/admin/limits/user"),
    ("PUT", "/admin/limits/user/ada"),
    ("DELETE", "/admin/limits/user/ada"),
    ("GET", "/admin/projects/p/usage"),
    ("GET", "/admin/usage"),
    ("GET", "/admin/usage/models"),
]


@pytest.fixture
async def accounted(served: Served, tmp_path: Path) -> AsyncIterator[Service]:
    """A service over a database with the use of two users on two days."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'usage.db'}")
    ledger.add(
        [
            record(1, project="bio"),
            record(2, at_ms=AT_MS + HOUR_MS, first_token_ms=None),
            record(3, at_ms=AT_MS + DAY_MS, user="bob", key="k1", model="big"),
        ]
    )
    ledger.close()
    async with served(VESTIBULE_STATE_DIR=str(tmp_path)) as service:
        yield service


async def used(service: Service, query: str = "", path: str = "/admin/usage") -> Any:
    admin = caller_of(service, service.admin_key)
    reply = await admin("GET", f"{path}?from={DAY}&{query}")
    assert reply.status == 200, reply.text
    return reply.json["usage"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_only_admins(call: Caller, method: str, path: str) -> None:
    assert (await call(method, path, {})).status == 403
    assert (await call.with_key(None)(method, path, {})).status == 401


async def test_use_by_day_hour_and_week(accounted: Service) -> None:
    first, second = await used(accounted)
    assert first == {
        "begin": "2026-11-18T00:00:00.000Z",
        "project": None,
        "user": None,
        "key": None,
        "model": None,
        "requests": 2,
        "served": 2,
        "prompt_tokens": 20,
        "completion_tokens": 10,
        "tokens": 30,
        "queued": 0.1,
        "first_token": 0.2,
        "duration": 0.7,
    }
    assert second["begin"] == "2026-11-19T00:00:00.000Z"
    assert [row["requests"] for row in await used(accounted, "span=hour")] == [1, 1, 1]
    [week] = await used(accounted, "span=week")
    assert (week["begin"], week["requests"]) == ("2026-11-16T00:00:00.000Z", 3)
    assert await used(accounted, "to=2026-11-18") == []
    assert len(await used(accounted, "span=hour&to=2026-11-18T12:00:00Z")) == 1
    assert await used(accounted, "to=0001-01-01T00:00:00%2B14:00") == []


@pytest.mark.parametrize(
    ("by", "found"),
    [
        ("user", [("ada", 2), ("bob", 1)]),
        ("model", [("tiny", 2), ("big", 1)]),
        ("key", [("", 2), ("k1", 1)]),
        ("project", [("", 1), ("bio", 1), ("", 1)]),
    ],
)
async def test_use_told_apart(accounted: Service, by: str, found: list[tuple[str, int]]) -> None:
    assert [(r[by], r["requests"]) for r in await used(accounted, f"by={by}")] == found


async def test_use_of_one_only(accounted: Service) -> None:
    assert [r["requests"] for r in await used(accounted, "user=ada")] == [2]
    assert [r["requests"] for r in await used(accounted, "user=ada&project=bio")] == [1]
    assert await used(accounted, "user=ada&model=big") == []


async def test_use_as_a_table(accounted: Service) -> None:
    admin = caller_of(accounted, accounted.admin_key)
    reply = await admin("GET", f"/admin/usage?from={DAY}&by=user&format=csv")
    assert reply.kind == "text/csv"
    assert 'filename="usage-by-day.csv"' in reply.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(reply.text)))
    as_json = await used(accounted, "by=user")
    assert [row["user"] for row in rows] == ["ada", "bob"]
    assert rows == [
        {name: "" if value is None else str(value) for name, value in row.items()}
        for row in as_json
    ]


async def test_no_cell_of_a_table_is_a_formula(accounted: Service, tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'usage.db'}")
    ledger.add([record(4, model='=HYPERLINK("http://evil")'), record(5, user="@ada", model="m")])
    ledger.close()
    admin = caller_of(accounted, accounted.admin_key)
    for by, shown in (("model", '\'=HYPERLINK("http://evil")'), ("user", "'@ada")):
        reply = await admin("GET", f"/admin/usage?from={DAY}&by={by}&format=csv")
        assert shown in [row[by] for row in csv.DictReader(io.StringIO(reply.text))]


async def test_use_of_a_project(accounted: Service) -> None:
    admin = caller_of(accounted, accounted.admin_key)
    path = "/admin/projects/bio/usage"
    assert (await admin("GET", path)).status == 404
    await admin("PUT", "/admin/projects/bio", {})
    assert [r["user"] for r in await used(accounted, "by=user", path)] == ["ada"]
    assert [r["user"] for r in await used(accounted, "by=user&project=other", path)] == ["ada"]


async def test_the_models_there_were(accounted: Service) -> None:
    admin = caller_of(accounted, accounted.admin_key)
    assert (await admin("GET", "/admin/usage/models")).json["models"][1] == {
        "model": "tiny",
        "first_seen": "2026-11-18T11:06:40.000Z",
        "last_used": "2026-11-18T12:06:40.000Z",
        "uses": 2,
    }


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("span=month", "span"),
        ("by=worker", "by"),
        ("by=user,model", "by"),
        ("from=yesterday", "from"),
        ("from=2026-11-18T10:00:00", "from"),  # where on earth?
        ("to=10000-01-01", "to"),
        ("format=xml", "format"),
        ("user=" + "a" * 257, "user"),
        ("model=%00", "model"),
    ],
)
async def test_bad_questions(accounted: Service, query: str, field: str) -> None:
    admin = caller_of(accounted, accounted.admin_key)
    reply = await admin("GET", f"/admin/usage?{query}")
    assert (reply.status, reply.json["field"]) == (422, field)


async def test_too_much_of_an_answer_says_what_to_ask(
    accounted: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("admission.accounting.reports.ROWS_MAX", 1)
    admin = caller_of(accounted, accounted.admin_key)
    reply = await admin("GET", f"/admin/usage?from={DAY}")
    assert (reply.status, reply.json["field"]) == (422, "from")


async def test_without_a_database_it_says_so(served: Served, tmp_path: Path) -> None:
    async with served(VESTIBULE_STATE_DIR=str(tmp_path / "elsewhere")) as service:
        reply = await caller_of(service, service.admin_key)("GET", "/admin/usage")
    assert (reply.status, reply.json["code"]) == (503, "ledger_unavailable")
    assert "VESTIBULE_DATABASE_URL" in reply.json["detail"]
    assert not (tmp_path / "elsewhere").exists()


async def test_a_project_has_limits(admin: Caller) -> None:
    path = "/admin/projects/bio"
    made = await admin("PUT", path, {"label": "Biology", "limits": {"tokens_per_day": 1000}})
    assert made.json["limits"] == {**NONE, "tokens_per_day": 1000}
    renamed = await admin("PUT", path, {"label": "Biology 2"})
    assert renamed.json == {**made.json, "label": "Biology 2"}
    other = await admin("PUT", path, {"limits": {"requests_per_minute": 7}})
    assert other.json == {**renamed.json, "limits": {**NONE, "requests_per_minute": 7}}
    assert (await admin("GET", path)).json == other.json
    assert (await admin("PUT", path, {"limits": None})).json["limits"] is None
    assert (await admin("GET", "/admin/limits")).json == {"limits": {}}


async def test_limits_of_a_project_and_a_key_go_with_them(admin: Caller) -> None:
    await admin("PUT", "/admin/projects/bio", {"limits": {}})
    key = (await admin("POST", "/admin/keys", {"kind": "service"})).json["id"]
    await admin("PUT", f"/admin/limits/key/{key}", {"tokens_per_month": 5})
    rows = (await admin("GET", "/admin/limits")).json["limits"]
    assert rows == {"project:bio": NONE, f"key:{key}": {**NONE, "tokens_per_month": 5}}
    await admin("DELETE", "/admin/projects/bio")
    await admin("DELETE", f"/admin/keys/{key}")
    assert (await admin("GET", "/admin/limits")).json == {"limits": {}}


async def test_limits_of_all_and_of_one(service: Service, admin: Caller) -> None:
    assert (await admin("PUT", "/admin/limits/user", {"requests_per_minute": 3})).json == {
        "row": "user",
        "limits": {**NONE, "requests_per_minute": 3},
    }
    await admin("PUT", "/admin/limits/user/ada", {})
    assert (await admin("GET", "/admin/limits")).json["limits"].keys() == {"user", "user:ada"}
    assert (await admin("DELETE", "/admin/limits/user/ada")).json["limits"] is None
    assert (await admin("DELETE", "/admin/limits/user/ada")).status == 404
    assert (await admin("DELETE", "/admin/limits/user")).status == 200
    assert (await admin("DELETE", "/admin/limits/user")).status == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("worker", {}, 422, "of"),
        ("user", {"tokens_per_day": -1}, 422, "tokens_per_day"),
        ("user", {"tokens_per_day": "many"}, 422, "tokens_per_day"),
        ("user", {"tokens_per_day": 10**16}, 422, "tokens_per_day"),
        ("user", {"tokens_per_year": 1}, 422, "tokens_per_year"),
        ("user/a%20b", {}, 422, "whose"),
        ("project/none", {}, 404, "whose"),
        ("key/none", {}, 404, "whose"),
    ],
)
async def test_bad_limits_change_nothing(
    admin: Caller, path: str, body: dict[str, Any], status: int, field: str
) -> None:
    reply = await admin("PUT", f"/admin/limits/{path}", body)
    assert (reply.status, reply.json["field"]) == (status, field)
    assert (await admin("GET", "/admin/limits")).json == {"limits": {}}


async def test_limits_hold_in_every_process_within_a_second(served: Served) -> None:
    async with served() as one, served() as other:
        admin = caller_of(one, one.admin_key)
        await admin("PUT", "/admin/limits/user/ada", {"tokens_per_day": 5})
        other_admin = caller_of(other, other.admin_key)

        async def known() -> bool:
            return bool((await other_admin("GET", "/admin/limits")).json["limits"])

        async with asyncio.timeout(1):
            await until(known)

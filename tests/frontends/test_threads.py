"""`/chat/threads`: everybody's own conversations, and nobody else's."""

import pytest

from tests.api.calls import caller_of
from tests.conftest import Service
from tests.frontends.conftest import Model, answer_in, person

THREADS = "/chat/threads"


async def test_a_conversation_from_its_begin_to_its_end(service: Service, model: Model) -> None:
    ada = await person(service, "ada")
    body = {"system": "Be brief.", "metadata": {"title": "Hé"}}
    made = await ada.call("POST", THREADS, body)
    assert (made.status, made.json["metadata"]) == (201, {"title": "Hé"})
    path = f"{THREADS}/{made.json['thread']}"
    assert answer_in(await ada.says("hello", thread=made.json["thread"])) == "Héllo there"
    assert model.asked[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    found = (await ada.call("GET", path)).json
    assert [(m["role"], m["content"]) for m in found["messages"]] == [
        ("user", "hello"),
        ("assistant", "Héllo there"),
    ]
    assert found["messages"][0]["at"].endswith("Z")
    cleared = await ada.call("POST", f"{path}/clear")
    assert (cleared.status, cleared.json["size_bytes"]) == (200, 0)
    assert (await ada.call("GET", path)).json["messages"] == []
    assert (await ada.call("DELETE", path)).json["deleted"] is True
    for method, gone in (("GET", path), ("DELETE", path), ("POST", f"{path}/clear")):
        assert (await ada.call(method, gone)).json["code"] == "thread_unknown"


async def test_nobody_reaches_anothers_by_its_id(service: Service, model: Model) -> None:
    ada, eve = await person(service, "ada"), await person(service, "eve")
    thread = (await ada.call("POST", THREADS, {})).json["thread"]
    path = f"{THREADS}/{thread}"
    for method, tried in (("GET", path), ("DELETE", path), ("POST", f"{path}/clear")):
        assert (await eve.call(method, tried)).status == 404
        assert (await eve.call(method, f"{tried}?user_id=ada")).status == 403
    reply = await eve.call("POST", "/chat/stream", {"message": "x", "thread": thread})
    assert reply.status == 404
    assert (await eve.call("GET", THREADS)).json == {"threads": [], "total": 0}
    assert (await ada.call("GET", path)).status == 200


async def test_a_trusted_frontend_names_the_user(service: Service, model: Model) -> None:
    trusted, ada = caller_of(service), await person(service, "ada")
    assert (await trusted("GET", THREADS)).fields == {"user_id"}
    made = await trusted("POST", f"{THREADS}?user_id=ada", {})
    assert (await ada.call("GET", THREADS)).json["threads"] == [made.json]


async def test_the_list_is_paged_with_the_last_used_first(service: Service, model: Model) -> None:
    ada = await person(service, "ada")
    made = []
    for _ in range(3):
        made.append((await ada.call("POST", THREADS, {})).json["thread"])
        service.clock.advance_ms(1)
    page = (await ada.call("GET", f"{THREADS}?offset=1&limit=1")).json
    assert ([thread["thread"] for thread in page["threads"]], page["total"]) == ([made[1]], 3)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (THREADS, {"system": ""}, "system"),
        (THREADS, {"system": "x" * 8193}, "system"),
        (THREADS, {"metadata": {"a": 1}}, "metadata.a"),
        (THREADS, {"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        (THREADS, {"messages": []}, "messages"),
        (f"{THREADS}?user_id=a%20b", {}, "user_id"),
    ],
)
async def test_bad_input_names_the_field(
    service: Service, path: str, body: dict[str, object], field: str
) -> None:
    ada = await person(service, "ada")
    reply = await ada.call("POST", path, body)
    assert (reply.status, reply.fields) == (422, {field})
    assert (await ada.call("GET", THREADS)).json["total"] == 0

"""What the plugin asks of Open WebUI's inside: which server answers a model, and who is in which
group. The modules stand in for those of 0.12.4; tests/e2e runs the real ones."""

import sys
import types
from typing import Any

import pytest

from tests.owui.conftest import Pages, WebUI

GATEWAY, OTHER = "http://gateway:8600/v1", "http://elsewhere/v1"
MARK = {"X-Vestibule-Message": "{{MESSAGE_ID}}"}

Json = dict[str, Any]


def request_with(
    monkeypatch: pytest.MonkeyPatch, urls: list[str], settings: Json, models: Json
) -> Any:
    """A request of an Open WebUI with these connections and base models."""

    async def get_openai_runtime_config() -> tuple[bool, list[str], list[str], Json]:
        return True, urls, [""] * len(urls), settings

    module = types.ModuleType("open_webui.routers.openai")
    vars(module)["get_openai_runtime_config"] = get_openai_runtime_config
    for name in ("open_webui", "open_webui.routers"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "open_webui.routers.openai", module)
    state = types.SimpleNamespace(MODELS=models, OPENAI_MODELS={})
    return types.SimpleNamespace(app=types.SimpleNamespace(state=state))


MODELS = {
    "tiny": {"id": "tiny", "urlIdx": 0},
    "gpu.tiny": {"id": "gpu.tiny", "urlIdx": 1},
}


@pytest.mark.parametrize(
    ("asked", "model", "served"),
    [
        ("gpu.tiny", {"id": "gpu.tiny", "urlIdx": 1}, "tiny"),
        ("tutor", {"id": "tutor", "info": {"base_model_id": "gpu.tiny"}}, "tiny"),
        ("tiny", {"id": "tiny", "urlIdx": 0}, None),  # the same name on another server
        ("tutor", {"id": "tutor", "info": {"base_model_id": "tiny"}}, None),
        ("llama3:8b", {"id": "llama3:8b", "owned_by": "ollama"}, None),
        ("a_pipe", {"id": "a_pipe", "pipe": {"type": "pipe"}}, None),
        ("unheard-of", {"id": "unheard-of"}, "unheard-of"),  # admission knows
    ],
)
async def test_only_models_of_our_connections_are_asked_for_and_by_the_gateways_name(
    plugin: types.ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    model: Json,
    served: str | None,
) -> None:
    settings = {"0": {}, "1": {"prefix_id": "gpu", "headers": MARK}}
    request = request_with(monkeypatch, [OTHER, GATEWAY], settings, MODELS)
    name = await plugin.served_name({"model": asked}, model, request, "http://127.0.0.1:1")
    assert name == served


@pytest.mark.parametrize(
    ("admission", "served"),
    [
        ("http://gateway:8600", None),  # by its address the other one is ours
        ("http://10.0.0.1:8600", "tiny"),  # none is known as ours: admission decides by the name
    ],
)
async def test_a_connection_made_by_hand_is_known_by_its_address(
    plugin: types.ModuleType, monkeypatch: pytest.MonkeyPatch, admission: str, served: str | None
) -> None:
    request = request_with(monkeypatch, [OTHER, GATEWAY], {}, MODELS)
    assert await plugin.served_name({"model": "tiny"}, {}, request, admission) == served


async def test_a_model_keeps_its_name_where_open_webui_is_unlike_the_known(
    plugin: types.ModuleType,
) -> None:
    assert await plugin.served_name({"model": "gpu.tiny"}, None, None, GATEWAY) == "gpu.tiny"


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ann is a teacher."""

    class Groups:
        @staticmethod
        async def get_groups_by_member_id(user_id: str) -> list[Any]:
            return [types.SimpleNamespace(name="Teachers")] if user_id == "ann" else []

    module = types.ModuleType("open_webui.models.groups")
    vars(module)["Groups"] = Groups
    for name in ("open_webui", "open_webui.models"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "open_webui.models.groups", module)


@pytest.mark.parametrize(
    ("user", "rules", "priority"),
    [
        ({"id": "ann", "role": "user"}, "role:admin=staff, group:Teachers=teachers", "teachers"),
        ({"id": "ann", "role": "admin"}, "role:admin=staff, group:Teachers=teachers", "staff"),
        ({"id": "bob", "role": "user"}, "role:admin=staff\ngroup:Teachers=teachers", None),
        ({"id": "ann", "role": "user"}, "", None),
    ],
)
async def test_the_first_rule_that_fits_gives_the_class(
    plugin: types.ModuleType, groups: None, user: Json, rules: str, priority: str | None
) -> None:
    assert await plugin.priority_of(user, rules, plugin.group_names) == priority


async def test_a_class_counts_in_line_and_one_the_pool_has_not_is_left_out(
    webui: WebUI, groups: None
) -> None:
    await webui.service.store.configure(
        "default", {"priorities": {"teachers": {"head_start_ms": 60_000, "weight": 1}}}
    )
    webui.set(priorities="group:Teachers=teachers, role:user=unheard-of")
    first = webui.chat("cid")  # role:user: the class is unknown, the chat goes on
    await first.is_answered()
    bob = webui.chat("bob")
    await bob.sees("You are 1st in line")
    ann = webui.chat("ann")
    await ann.sees("You are 1st in line")
    assert (await webui.ticket("ann"))["priority"] == "teachers"
    assert (await webui.ticket("bob"))["position"] == 2


@pytest.mark.parametrize(
    ("chat", "told"), [("chat", 1), ("temporary:sid", 0), ("local:sid", 0), ("channel:1", 0)]
)
async def test_other_pages_are_led_to_a_chat_that_they_can_open_only(
    plugin: types.ModuleType, pages: Pages, chat: str, told: int
) -> None:
    metadata = {"chat_id": chat, "message_id": "m", "user_id": "ann"}
    await plugin.call_pages(metadata, "It is your turn", "Time left: 5 minutes")
    assert [event["type"] for event in pages.live] == ["chat:completion"] * told

"""The words a person reads, and which chats are the filter's business at all."""

import ast
import sys
import types

import pytest

from tests.owui.conftest import SOURCE, load

TEXT = SOURCE.read_text("utf-8")


@pytest.mark.parametrize(
    ("number", "said"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (13, "13th"),
     (21, "21st"), (22, "22nd"), (101, "101st"), (111, "111th"), (1013, "1013th")],
)  # fmt: skip
def test_ordinals(plugin: types.ModuleType, number: int, said: str) -> None:
    assert plugin.ordinal(number) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "less than a minute"), (59.9, "less than a minute"), (60, "about 1 minute"),
     (100, "about 2 minutes"), (240, "about 4 minutes"), (5340, "about 89 minutes"),
     (5400, "about 2 hours"), (36000, "about 10 hours")],
)  # fmt: skip
def test_times_to_come(plugin: types.ModuleType, seconds: float, said: str) -> None:
    assert plugin.about(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (42.4, "42 s"), (60, "1 min"), (185, "3 min 5 s"), (3600, "1 h"),
     (4215, "1 h 10 min")],
)  # fmt: skip
def test_times_that_passed(plugin: types.ModuleType, seconds: float, said: str) -> None:
    assert plugin.elapsed(seconds) == said


@pytest.mark.parametrize(
    ("wait", "said"),
    [(250, "You are 5th in line, about 4 minutes"), (None, "You are 5th in line")],
)
def test_the_place_is_a_number_and_an_unknown_wait_is_not_guessed(
    plugin: types.ModuleType, wait: int | None, said: str
) -> None:
    ticket = plugin.Ticket(status="waiting", pool="default", position=5, estimated_wait=wait)
    assert ticket.words() == said


def test_statuses_fit_the_one_line_that_open_webui_shows(plugin: types.ModuleType) -> None:
    longest = {"place": plugin.ordinal(123_456), "wait": plugin.about(5340), "waited": "1 h 59 min"}
    for words in plugin.WORDS.values():
        assert len(words.format(**longest)) < 80 or words.endswith("administrator.")


def test_frontmatter_is_what_open_webui_reads() -> None:
    # extract_frontmatter, utils/plugin.py: the first line is the quotes alone, then `key: value`.
    lines = TEXT.splitlines()
    assert lines[0] == '"""'
    head = dict(line.split(": ", 1) for line in lines[1 : lines.index("")])
    assert head["title"] == "Vestibule"
    assert head["author"] == "Vestibule"
    assert head["license"] == "Apache-2.0"
    assert head["required_open_webui_version"] == "0.12.4"
    assert {"version", "description"} <= head.keys()
    assert "requirements" not in head


def test_open_webui_rewrites_nothing_in_the_source() -> None:
    # replace_imports rewrites these words wherever they stand, in what people read too.
    for word in ("utils", "apps", "main", "config"):
        assert f"from {word}" not in TEXT


def test_only_what_open_webui_ships_is_imported() -> None:
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(TEXT))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else
                     [alias.name for alias in node.names])
    }  # fmt: skip
    assert imported - sys.stdlib_module_names == {"aiohttp", "pydantic", "open_webui"}


def test_a_parameter_that_is_not_injected_has_a_default() -> None:
    module = load(TEXT)
    handlers = [getattr(module.Filter, name, None) for name in ("inlet", "outlet", "request")]
    for handler in filter(None, handlers):
        code = handler.__code__
        injected = code.co_varnames[2 : code.co_argcount]  # after self and body
        assert len(handler.__defaults__ or ()) == len(injected)


def test_every_valve_has_a_default_and_a_description() -> None:
    gate = load(TEXT).Filter()
    fields = gate.Valves.model_json_schema()["properties"]
    assert gate.valves == gate.Valves()
    assert all("default" in field and field["description"] for field in fields.values())
    assert fields["service_key"]["input"] == {"type": "password"}
    assert fields["when_admission_is_away"]["default"] == "refuse"


def test_no_user_can_switch_the_gate_off() -> None:
    module = load(TEXT)
    assert not hasattr(module.Filter(), "toggle")
    assert not hasattr(module, "Pipe")  # would be loaded instead of the filter


@pytest.mark.parametrize("kind", ["internal", "direct", "task"])
async def test_what_needs_no_turn_passes_without_a_call(
    plugin: types.ModuleType, kind: str
) -> None:
    gate = plugin.Filter()
    gate.valves = gate.Valves(admission_url="http://127.0.0.1:1", away_grace_s=0)
    body = {"model": "tiny"}
    assert await gate.inlet(body, {"id": "ann"}, {"session_id": "sid", kind: True}) is body


class Connections:
    """Open WebUI's second connection has a prefix."""

    MODELS = types.MappingProxyType({"gpu.tiny": {"id": "gpu.tiny", "urlIdx": 1}})
    OPENAI_MODELS = types.MappingProxyType({"gpu.hidden": {"id": "gpu.hidden", "urlIdx": 1}})

    @staticmethod
    async def get_openai_connection(index: int) -> tuple[str, str, dict[str, str]]:
        return "http://gateway/v1", "", [{}, {"prefix_id": "gpu"}][index]


@pytest.mark.parametrize(
    ("asked", "model", "served"),
    [
        ("tiny", {"id": "tiny", "urlIdx": 0}, "tiny"),
        ("gpu.tiny", {"id": "gpu.tiny", "urlIdx": 1}, "tiny"),
        ("gpu.tiny", {"id": "gpu.tiny", "urlIdx": 0}, "gpu.tiny"),
        ("tutor", {"id": "tutor", "info": {"base_model_id": "gpu.tiny"}}, "tiny"),
        ("tutor", {"id": "tutor", "info": {"base_model_id": "gpu.hidden"}}, "hidden"),
        ("tiny", {"id": "tiny", "info": {"base_model_id": None}}, "tiny"),
        ("llama3:8b", {"id": "llama3:8b", "owned_by": "ollama"}, "llama3:8b"),
    ],
)
async def test_models_are_asked_for_by_the_gateways_name(
    plugin: types.ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    model: dict[str, object],
    served: str,
) -> None:
    monkeypatch.setitem(sys.modules, "open_webui", types.ModuleType("open_webui"))
    monkeypatch.setitem(sys.modules, "open_webui.routers", types.ModuleType("open_webui.routers"))
    monkeypatch.setitem(sys.modules, "open_webui.routers.openai", Connections)
    request = types.SimpleNamespace(app=types.SimpleNamespace(state=Connections))
    assert await plugin.served_name({"model": asked}, model, request) == served


async def test_a_model_keeps_its_name_where_open_webui_is_unlike_the_known(
    plugin: types.ModuleType,
) -> None:
    assert await plugin.served_name({"model": "gpu.tiny"}, None, None) == "gpu.tiny"

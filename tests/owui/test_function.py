"""How Open WebUI loads the assembled file, what may be set, and which chats are its business."""

import ast
import re
import sys
import types

import pytest
from pydantic import ValidationError

from owui_pipeline import assemble
from tests.owui.conftest import load

TEXT = assemble.function()


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
    assert imported - sys.stdlib_module_names == {
        "aiohttp",
        "open_webui",
        "pydantic",
        "sqlalchemy",
    }


def test_a_parameter_that_is_not_injected_has_a_default() -> None:
    module = load(TEXT)
    handlers = [getattr(module.Filter, name, None) for name in ("inlet", "outlet", "request")]
    for handler in filter(None, handlers):
        code = handler.__code__
        injected = code.co_varnames[2 : code.co_argcount]  # after self and body
        assert len(handler.__defaults__ or ()) == len(injected)


def test_no_two_modules_use_the_same_name() -> None:
    # Put together they are one module: the later would take the earlier one's place.
    names = [name for node in ast.parse(TEXT).body for name in _named(node)]
    assert [name for name in set(names) if names.count(name) > 1] == []


def _named(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


@pytest.mark.parametrize(
    ("valve", "value", "said"),
    [
        ("priorities", "role:admin", "role:NAME=CLASS"),
        ("priorities", "group:A=Staff", "'group:A=Staff'"),
        ("texts", "{", "not JSON"),
        ("texts", '{"fr": {"waitin": "x"}}', "texts.fr.waitin: no such text"),
        ("language", "xx", "language"),
        ("max_wait_s", 0, "max_wait_s"),
    ],
)
def test_a_valve_that_makes_no_sense_is_refused_by_name(
    valve: str, value: object, said: str
) -> None:
    gate = load(TEXT).Filter()
    with pytest.raises(ValidationError, match=re.escape(said)):
        gate.Valves(**{valve: value})


def test_every_valve_has_a_default_and_a_description() -> None:
    gate = load(TEXT).Filter()
    fields = gate.Valves.model_json_schema()["properties"]
    assert gate.valves == gate.Valves()
    own = gate.UserValves.model_json_schema()["properties"]
    for field in (*fields.values(), *own.values()):
        assert "default" in field
        assert field["description"]
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


@pytest.mark.parametrize(
    ("session", "more", "kind"),
    [
        ("kGq2-sid", {}, "page"),
        (None, {}, "api"),
        ("", {}, "api"),
        ("automation:7", {"automation_id": "7"}, "alone"),
        ("kGq2-sid", {"automation_id": "7"}, "alone"),
        ("channel:12", {}, "alone"),
        ("subagent-result:chat", {}, "alone"),
        ("kGq2-sid", {"chat_id": ""}, "api"),  # answered in the request: main.py, `chat_completion`
    ],
)
def test_who_may_go_away_while_a_chat_waits(
    plugin: types.ModuleType, session: str | None, more: dict[str, str], kind: str
) -> None:
    assert plugin.kind_of({"session_id": session, "chat_id": "chat", **more}) == kind


@pytest.mark.parametrize(
    ("own", "valve", "page", "said"),
    [
        ("auto", "auto", "de-DE", "Sie sind an der Reihe"),
        ("auto", "fr", "de-DE", "C’est à vous"),
        ("it", "fr", "de-DE", "È il tuo turno"),
        ("auto", "auto", "ja-JP", "Es tu turno"),  # then the browser's languages count
        ("auto", "auto", None, "Es tu turno"),
    ],
)
def test_the_language_is_the_users_the_administrators_or_the_pages(
    plugin: types.ModuleType, own: str, valve: str, page: str | None, said: str
) -> None:
    valves = plugin.Filter.Valves(language=valve)
    user = {"valves": plugin.Filter.UserValves(language=own)}
    metadata = {"variables": {"{{USER_LANGUAGE}}": page} if page else {}}
    request = types.SimpleNamespace(headers={"accept-language": "ja, es;q=0.5"})
    words = plugin.spoken(valves, user, metadata, request)
    assert words.say("your_turn") == said


def test_an_administrators_own_words_take_the_place_of_ours(plugin: types.ModuleType) -> None:
    texts = '{"your_turn": "Go!", "fr": {"your_turn": "Allez\u00a0!"}}'
    valves = plugin.Filter.Valves(texts=texts, language="fr")
    assert plugin.spoken(valves, {}, {}, None).say("your_turn") == "Allez\u00a0!"
    valves = plugin.Filter.Valves(texts=texts, language="it")
    assert plugin.spoken(valves, {}, {}, None).say("your_turn") == "Go!"

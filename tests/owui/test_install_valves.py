"""Valves, the printed difference, the variables and the text itself, each on its own."""

from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError, model_validator

from infra import cli
from infra.errors import CommandError
from infra.owui import function, valves
from infra.owui.change import Change, Secret
from infra.owui.target import Gateway, Target
from infra.owui.variables import FORMS
from owui_pipeline import assemble
from owui_pipeline.languages import TABLES
from owui_pipeline.valves import SharedValves
from owui_pipeline.words import own_texts

HERE = "http://127.0.0.1:8600"


class Valves(BaseModel):
    """As a version might have them."""

    admission_url: str = HERE
    service_key: str = Field(default="", json_schema_extra={"input": {"type": "password"}})
    seconds: int = Field(default=3600, ge=1)
    away: Literal["refuse", "pass"] = "refuse"


@pytest.mark.parametrize(
    ("named", "current", "stands"),
    [
        (None, {}, HERE),
        (None, {"admission_url": "http://docker:8600"}, "http://docker:8600"),
        ("http://new:1", {"admission_url": "http://docker:8600"}, "http://new:1"),
    ],
)
def test_valves_that_were_changed_stay(
    named: str | None, current: dict[str, Any], stands: str
) -> None:
    target = Target("vestibule", named, (), HERE, "new-key")
    merged = valves.merged({**current, "seconds": 7, "service_key": "old"}, target)
    assert merged == {"seconds": 7, "admission_url": stands, "service_key": "new-key"}


def test_a_gateway_added_later_does_not_move_the_function() -> None:
    target = Target("vestibule", None, (Gateway("http://b", "k"),), HERE, "k")
    assert valves.merged({}, target) == {"admission_url": "http://b", "service_key": "k"}
    current = {"admission_url": HERE, "service_key": "of-here"}
    assert valves.merged(current, target) == current


def test_the_key_of_the_gateway_where_admission_is_goes_to_the_function() -> None:
    gateways = (Gateway("http://b", "of-b"), Gateway(HERE, "of-here"))
    target = Target("vestibule", None, gateways, HERE, "of-b")
    current = {"admission_url": HERE, "service_key": "old"}
    assert valves.merged(current, target)["service_key"] == "of-here"
    apart = Target("vestibule", "http://adm", (Gateway("http://b", "k"),), HERE, "k")
    assert valves.merged(current, apart)["service_key"] == "k"


def test_only_what_does_not_fit_is_lost_and_it_is_named() -> None:
    stored = {"seconds": "many", "away": "pass", "old": 1, "service_key": "k"}
    assert set(valves.unfit(Valves, stored)) == {"seconds", "old"}
    assert valves.unfit(Valves, {"seconds": None, "away": "pass"}) == {}


def test_valves_that_only_do_not_go_together_are_not_guessed_at() -> None:
    class Paired(Valves):
        @model_validator(mode="after")
        def check(self) -> "Paired":
            if self.away == "pass" and self.seconds == 1:
                raise ValueError("not together")
            return self

    with pytest.raises(CommandError, match="not together"):
        valves.unfit(Paired, {"away": "pass", "seconds": 1})


def test_keys_are_secrets_also_of_versions_that_are_gone() -> None:
    stored = {"service_key": "k1", "old_api_key": "k2", "away": "pass"}
    facts = valves.facts(Valves, stored)
    lines = list(Change("valves", None, facts, lambda: None).lines())
    assert lines == [
        "valves: new",
        "  + service_key = (set)",
        "  + old_api_key = (set)",
        "  + away = pass",
    ]
    assert valves.changed(Valves, {**stored, "seconds": 3600}).keys() == stored.keys()


def test_a_changed_key_shows_that_it_changed_and_nothing_else() -> None:
    before, after = {"key": Secret("old"), "at": "a"}, {"key": Secret("new"), "at": "a"}
    change = Change("connection", before, after, lambda: None)
    assert list(change.lines()) == [
        "connection: changed",
        "  - key = (set)",
        "  + key = (changed)",
    ]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("asked", [[], ["--jwt"], ["--jwt", "--replicas", "--api-keys"]])
def test_the_variables_can_be_copied(
    form: str,
    asked: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("VESTIBULE_OWUI_JWT_SECRET", raising=False)
    assert cli.main(["owui", "env", "--for", form, *asked]) == 0
    lines = [one for one in capsys.readouterr().out.splitlines() if not one.startswith("#")]
    assert len(lines) == {0: 0, 1: 2, 3: 7}[len(asked)]
    begin = {"docker": "  -e ", "compose": "      ", "pip": "export "}[form]
    assert all(line.startswith(begin) for line in lines)
    secret = [line.split("SECRET", 1)[1] for line in lines if "JWT_SECRET" in line]
    braces = '"${VESTIBULE_OWUI_JWT_SECRET}"'
    assert (
        not secret
        or {
            "docker": '="$VESTIBULE_OWUI_JWT_SECRET" \\',
            "compose": f": {braces}",
            "pip": '="$VESTIBULE_OWUI_JWT_SECRET"',
        }[form]
        in secret
    )


def test_the_texts_are_printed_as_their_valve_takes_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["owui", "file", "--for", "texts"]) == 0
    printed = capsys.readouterr().out
    assert "You are {place} in line" in printed
    assert own_texts(SharedValves(texts=printed).texts) == TABLES


def test_no_name_of_a_module_is_lost_to_another() -> None:
    with pytest.raises(ValueError, match="words, calls, words has: DAY_S,.* Words"):
        assemble.assemble("words", "calls", "words")


@pytest.mark.parametrize(
    ("typed", "stands"),
    [
        ("http://gpu:8600/v1/", "http://gpu:8600"),
        (" https://gpu.example/below ", "https://gpu.example/below"),
        ("http://[::1]:8600", "http://[::1]:8600"),
    ],
)
def test_an_address_is_taken_as_people_paste_it(typed: str, stands: str) -> None:
    assert SharedValves(admission_url=typed).admission_url == stands


@pytest.mark.parametrize("typed", ["", "gpu:8600", "http://", "http://me:pw@gpu", "http://gpu?a=b"])
def test_what_is_no_address_is_refused(typed: str) -> None:
    with pytest.raises(ValidationError, match="is not an address like http"):
        SharedValves(admission_url=typed)


def test_a_key_is_taken_without_the_line_s_end() -> None:
    assert SharedValves(service_key=" vst-1\n").service_key == "vst-1"


def test_the_text_is_stored_by_open_webui_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """It replaces these words wherever they stand (``replace_imports``, utils/plugin.py); then no
    install would ever find what it wrote."""
    assert cli.main(["owui", "file"]) == 0
    text = capsys.readouterr().out
    assert text == function.source()
    assert not [name for name in ("utils", "apps", "main", "config") if f"from {name}" in text]
    assert text.startswith('"""\n')

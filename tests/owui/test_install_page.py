"""docs/open-webui.md cannot rot: its valves, words and answers are those of the code."""

import argparse
import re
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from infra.owui import command, function

PAGE = (Path(__file__).parents[2] / "docs" / "open-webui.md").read_text()
OF_OTHERS = {"--add-host"}  # of `docker run`


def row(name: str, field: FieldInfo) -> str:
    """A valve as the page's tables show it."""
    default = field.default
    if isinstance(default, bool):
        default = "on" if default else "off"
    shown = "none" if default == "" else f"`{default}`"
    return f"| `{name}` | {shown} | {field.description} |"


@pytest.mark.parametrize("kind", ["Valves", "UserValves"])
def test_the_tables_of_valves_are_the_code(kind: str) -> None:
    fields = function.valves_of(function.source(), kind).model_fields
    missing = [row(name, one) for name, one in fields.items() if row(name, one) not in PAGE]
    assert not missing


def test_every_option_of_the_page_exists() -> None:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    known: set[str] = set()
    for action in parser._actions:
        for sub in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
            known |= set(sub._option_string_actions)
    named = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    assert len(named) > 10
    assert named <= known | OF_OTHERS


def test_no_line_of_the_page_is_too_long_but_in_tables() -> None:
    assert not [one for one in PAGE.splitlines() if len(one) > 120 and not one.startswith("|")]

"""A table of a TOML file as one of our structs, with every mistake in it named by its place.

A span stands in the file in seconds, under the field's name without its unit: ``wait_target = 5``
for ``wait_target_ms``, ``install = 900`` for ``install_s``.
"""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, get_args

import msgspec

_UNITS = MappingProxyType({"_ms": 1000, "_s": 1})
_OTHER = "Invalid enum value "  # as msgspec begins
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])")

T = TypeVar("T", bound=msgspec.Struct)


class Problems(list[str]):
    """What is wrong, a line each: ``TABLE.FIELD: why``."""

    def add(self, place: str, why: str) -> None:
        self.append(f"{place}: {why}")


def read(table: Mapping[str, Any], kind: type[T], place: str, problems: Problems) -> T | None:
    """The struct; None when something is wrong with it, which ``problems`` then tell.

    Args:
        place: of the table in its file, as ``pools.default``.
    """
    fields = {_shown(each.name): each for each in msgspec.structs.fields(kind)}
    before = len(problems)
    for name in sorted(table.keys() - fields.keys()):
        problems.add(f"{place}.{name}", f"unknown; one of {', '.join(fields)}")
    values = {}
    for name, each in fields.items():
        if name in table:
            try:
                values[each.name] = _value(table[name], each.name, each.type)
            except msgspec.ValidationError as error:
                problems.add(f"{place}.{name}", _told(str(error), each.type))
        elif each.required:
            problems.add(f"{place}.{name}", "missing")
    missing = [each for each in fields.values() if each.required and each.name not in values]
    return None if missing else _made(values, kind, place, problems, before)


def _made(
    values: dict[str, Any], kind: type[T], place: str, problems: Problems, before: int
) -> T | None:
    """A struct names the first field that makes no sense: without it the next one is found."""
    optional = {each.name for each in msgspec.structs.fields(kind) if not each.required}
    while True:
        try:
            made = kind(**values)
        except ValueError as error:
            field, _, why = str(error).partition(": ")
            problems.add(f"{place}.{_shown(field)}", _in_seconds(why, field))
            if field not in optional or values.pop(field, None) is None:
                return None
        else:
            return made if len(problems) == before else None


def _unit(field: str) -> str:
    return next((unit for unit in _UNITS if field.endswith(unit)), "")


def _shown(field: str) -> str:
    """A field's name as it stands in the file."""
    return field.removesuffix(_unit(field))


def _value(given: Any, field: str, kind: Any) -> Any:
    if unit := _unit(field):
        seconds = msgspec.convert(given, float | None if given is None else float, strict=True)
        given = seconds if _UNITS[unit] == 1 else round((seconds or 0) * _UNITS[unit])
        if kind is int:
            given = round(given)
    return msgspec.convert(given, kind, strict=True)


def _in_seconds(why: str, field: str) -> str:
    """What a struct says of its ms, in the file's seconds."""
    if not field.endswith("_ms"):
        return why
    return _NUMBER.sub(lambda found: f"{float(found[0]) / 1000:g}", why).replace("_ms", "")


def _told(message: str, kind: Any) -> str:
    """msgspec's words: the place within the value first, which words there are to choose from, and
    no word of types that TOML has not."""
    words, _, path = message.partition(" - at `$")
    within = path.rstrip("`").lstrip(".")
    text = words.removeprefix("Object ")
    if text.startswith(_OTHER) and (choices := list(_choices(kind))):
        text = f"{text.removeprefix(_OTHER)} is none of {', '.join(choices)}"
    return f"{within}: {text}" if within else text[:1].lower() + text[1:]


def _choices(kind: Any) -> Iterator[str]:
    """Those of a Literal, wherever it is in the type."""
    for each in get_args(kind):
        yield from [each] if isinstance(each, str) else _choices(each)

"""The scripts keep the promises of their headers, and their own house rules."""

import re
from pathlib import Path

import pytest
from redis.asyncio import Redis

import admission.store
from admission.clock import RedisClock
from admission.domain import PoolPolicy
from admission.store import names, scripts
from admission.store.redis_store import RedisStore

LUA = Path(admission.store.__file__).parent / "lua"
NAMES = scripts.script_names()
FILES = sorted(LUA.rglob("*.lua"))
LINES_MAX = 60
LEADING = ("now_ms", "policy")  # ARGV[1] and [2], read by the library


def body_of(name: str) -> str:
    """A script without its header and comments."""
    _, _, body = (LUA / f"{name}.lua").read_text().partition("]]\n")
    return re.sub(r"--.*", "", body)


def unpacked(body: str) -> list[tuple[str | None, int]]:
    """Each read of ARGV, with the local it lands in, in the order of the text."""
    found: list[tuple[str | None, int]] = []
    for line in body.splitlines():
        indexes = [int(index) for index in re.findall(r"ARGV\[(\d+)\]", line)]
        declared = re.match(r"\s*local ([\w, ]+) =", line)
        locals_: list[str | None] = list(declared[1].split(", ")) if declared else [None]
        if indexes:
            assert len(locals_) == len(indexes), f"one local for each argument: {line}"
            found += zip(locals_, indexes, strict=True)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_header_names_its_file_and_what_every_script_takes(name: str) -> None:
    contract = scripts.contract(name)
    assert contract.name == name
    assert contract.arguments[:2] == LEADING
    assert contract.tags


@pytest.mark.parametrize("name", NAMES)
def test_the_body_unpacks_arguments_as_the_header_orders_them(name: str) -> None:
    arguments = scripts.contract(name).arguments
    reads = unpacked(body_of(name))
    assert sorted(index for _, index in reads) == list(range(3, len(arguments) + 1))
    for local, index in reads:
        assert local not in arguments or arguments.index(local) == index - 1, local


@pytest.mark.parametrize("name", NAMES)
def test_a_body_answers_the_tags_of_its_header_and_no_other(name: str) -> None:
    body, tags = body_of(name), set(scripts.contract(name).tags)
    assert set(re.findall(r'reply\("(\w+)"', body)) <= tags
    said = set(re.findall(r'"(\w+)"', body))  # some tags are chosen, then replied
    if "return unknown()" in body:
        said.add("unknown")
    assert tags <= said


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_only_the_clock_reads_the_time(path: Path) -> None:
    assert ('"TIME"' in path.read_text()) == (path.name == "clock.lua")


@pytest.mark.parametrize("name", NAMES)
def test_a_script_is_read_in_one_sitting(name: str) -> None:
    assert len(body_of(name).splitlines()) <= LINES_MAX


def test_every_key_in_lua_is_declared_and_every_declared_key_is_used() -> None:
    text = "\n".join(re.sub(r"--.*", "", path.read_text()) for path in FILES)
    assert set(re.findall(r"\bK\.(\w+)", text)) == {key.name for key in names.POOL_KEYS}


def test_every_part_of_the_library_is_loaded() -> None:
    assert sorted(scripts.LIBRARY) == sorted(path.stem for path in (LUA / "lib").iterdir())


async def test_redis_compiles_every_script(redis: Redis) -> None:
    await RedisStore(redis, RedisClock(), PoolPolicy()).load()


@pytest.mark.parametrize("text", ["return 1", "--[[\nx - y\nARGV\n  now_ms  int\n]]\n"])
def test_a_script_without_a_whole_header_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"begins with|needs the sections"):
        scripts.read_contract(text)


@pytest.mark.parametrize("given", [{}, {"now_ms": 0, "policy": "{}", "user": "a", "x": 1}])
def test_a_call_with_missing_or_unknown_arguments_fails_by_name(given: dict[str, int]) -> None:
    with pytest.raises(TypeError, match="status takes"):
        scripts.arguments(scripts.contract("status"), given)  # type: ignore[arg-type]


HEADER = "--[[\nx - y\nARGV\n  now_ms  int\nRETURNS\n  ok  null\n{uses}]]\n"


def test_a_script_carries_the_whole_library_or_the_parts_it_uses_in_their_order() -> None:
    assert scripts.read_contract(HEADER.format(uses="")).uses == scripts.LIBRARY
    some = scripts.read_contract(HEADER.format(uses="USES\n  view clock\n  ticket\n"))
    assert some.uses == ("clock", "ticket", "view")


def test_a_script_that_uses_no_part_of_the_library_is_refused() -> None:
    with pytest.raises(ValueError, match="uses attic"):
        scripts.read_contract(HEADER.format(uses="USES\n  clock attic\n"))


@pytest.mark.parametrize("name", NAMES)
def test_what_redis_gets_holds_what_the_header_uses_and_no_more(name: str) -> None:
    sent = scripts.source(name)
    held = [part for part in scripts.LIBRARY if (LUA / f"lib/{part}.lua").read_text() in sent]
    assert tuple(held) == scripts.contract(name).uses

"""The table of ticks is what the docs say, and whole."""

import re
from pathlib import Path

import pytest

from admission.accounting.ledger import Ledger
from admission.settings import Upstream
from admission.store.redis_store import RedisStore
from scheduler.books import Books
from scheduler.table import NAMES, table
from tests.conftest import service_settings

DOCS = (Path(__file__).parent.parent.parent / "docs" / "ticks.md").read_text()


@pytest.fixture
def books(store: RedisStore, tmp_path: Path) -> Books:
    ledger = Ledger(f"sqlite:///{tmp_path / 'usage.db'}")
    return Books.of(store, store.usage, ledger, service_settings())


async def test_with_all_that_is_given_it_has_all_names_in_their_order(
    store: RedisStore, books: Books
) -> None:
    async with table(store, [Upstream("http://a", 1)], None, books) as ticks:
        assert tuple(tick.name for tick in ticks) == NAMES
        for tick in ticks:
            assert tick.does
            assert tick.limit_s > 0
    async with table(store) as ticks:
        assert [tick.name for tick in ticks] == ["expire", "announce", "workers", "agents"]


async def test_the_docs_name_each_with_its_period_and_its_limit(
    store: RedisStore, books: Books
) -> None:
    found = {}
    for names, every, most in re.findall(r"^\| (`.*?) \| (\d+) s.*? \| (\d+) s \|", DOCS, re.M):
        for name in re.findall(r"`([a-z_]+)", names):
            found[name] = float(every), float(most)
    async with table(store, [Upstream("http://a", 1)], None, books) as ticks:
        known = {tick.name: (tick.period_s, tick.limit_s) for tick in ticks}
        assert {name: found.get(name) for name in known} == known


async def test_upstreams_have_a_lease_for_each_list_of_them(store: RedisStore) -> None:
    """A scheduler that was told of others must ask those itself."""
    one, two = Upstream("http://a", 1), Upstream("http://b", 1)
    leases = []
    for upstreams in ([one, two], [two, one], [one], [Upstream("http://a", 2)]):
        async with table(store, upstreams) as ticks:
            leases.append(ticks[-1].key)
    assert leases[0] == leases[1]
    assert len(set(leases)) == 3
    assert all(re.fullmatch("probe-[0-9a-f]{6}", lease) for lease in leases)

"""What the scale tests share: the servers they run on, and the service as real processes."""

import pytest

from tests.scale.servers import BINARIES

MATRIX = [
    pytest.param("valkey", id="valkey"),
    pytest.param("redis", id="redis"),
]


def binary_of(name: str) -> str:
    """The server's program; a test that needs it is skipped where there is none."""
    found = BINARIES[name]()
    if found is None:
        pytest.skip("this machine has no redis-server (Debian: apt-get install redis-server)")
    return found


@pytest.fixture
def valkey_binary() -> str:
    """The server of the fast tests."""
    return binary_of("valkey")


@pytest.fixture(params=MATRIX)
def any_binary(request: pytest.FixtureRequest) -> str:
    """Each server of the matrix in turn."""
    return binary_of(request.param)

"""Whose address, scheme and host are believed (DESIGN section 5, trusted proxies)."""

import pytest

from tests.api.calls import Caller, caller_of
from tests.api.conftest import Served

ONE_CALL = {"VESTIBULE_RATE_ADDRESS": "1/hour"}  # shows for whose address a call counts
HERE = "127.0.0.0/8"  # where the tests call from


async def counted_apart(call: Caller, one: str, other: str) -> bool:
    """Whether calls with these two ``X-Forwarded-For`` come from two addresses."""
    answers = [
        (await call("GET", "/v1/models", headers={"X-Forwarded-For": said})).status
        for said in (one, other)
    ]
    assert answers[0] == 401
    return answers[1] == 401


@pytest.mark.parametrize(
    ("trusted", "one", "other", "apart"),
    [
        ("", "1.1.1.1", "2.2.2.2", False),
        ("10.0.0.0/8", "1.1.1.1", "2.2.2.2", False),
        (HERE, "1.1.1.1", "2.2.2.2", True),
        (HERE, "1.1.1.1", "1.1.1.1:5000", False),
        (HERE, "9.9.9.9, 1.1.1.1", "8.8.8.8, 1.1.1.1", False),
        (f"{HERE},10.0.0.0/8", "1.1.1.1, 10.0.0.7", "2.2.2.2,10.0.0.7", True),
        (f"{HERE},10.0.0.0/8", "9.9.9.9, 1.1.1.1, 10.0.0.7", "1.1.1.1", False),
        (HERE, "1.1.1.1, unknown", "2.2.2.2, unknown", False),
        (HERE, "::ffff:1.1.1.1", "1.1.1.1", False),
        (HERE, "2001:db8:0:1::1", "[2001:db8:0:1::2]:443", False),
        (HERE, "2001:db8:0:1::1", "2001:db8:0:2::1", True),
    ],
    ids=[
        "nobody is trusted",
        "another is trusted",
        "trusted",
        "with a port",
        "the left may be invented",
        "behind two proxies",
        "the rightmost untrusted counts",
        "no address",
        "IPv4 in IPv6",
        "one IPv6 network",
        "two IPv6 networks",
    ],
)
async def test_the_callers_address(
    served: Served, trusted: str, one: str, other: str, apart: bool
) -> None:
    async with served(VESTIBULE_TRUSTED_PROXIES=trusted, **ONE_CALL) as service:
        call = caller_of(service).with_key(None)
        assert await counted_apart(call, one, other) is apart


async def test_the_header_of_a_caller_that_proxies_pass_on_is_not_believed(served: Served) -> None:
    async with served(VESTIBULE_TRUSTED_PROXIES=HERE, **ONE_CALL) as service:
        call = caller_of(service).with_key(None)
        for address, answer in (("1.1.1.1", 401), ("2.2.2.2", 429)):
            headers = {"Forwarded": f"for={address}", "X-Real-IP": address}
            assert (await call("GET", "/v1/models", headers=headers)).status == answer

"""What a handler may ask of a call, by whichever transport it came.

aiohttp's request is one as it is; what a function was invoked with is made one
(``invocation``). The operations take this and no more, so they are written once.
"""

from collections.abc import Mapping
from typing import Protocol, TypeVar

from aiohttp import web
from multidict import CIMultiDictProxy, MultiMapping
from yarl import URL

T = TypeVar("T")


class Asked(Protocol):
    """One call. Names and meanings are those of ``aiohttp.web.Request``."""

    @property
    def app(self) -> web.Application: ...

    @property
    def method(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def rel_url(self) -> URL: ...

    @property
    def query(self) -> MultiMapping[str]: ...

    @property
    def headers(self) -> CIMultiDictProxy[str]: ...

    @property
    def cookies(self) -> Mapping[str, str]: ...

    @property
    def match_info(self) -> Mapping[str, str]: ...

    @property
    def scheme(self) -> str: ...

    @property
    def host(self) -> str: ...

    @property
    def remote(self) -> str | None: ...

    @property
    def can_read_body(self) -> bool: ...

    async def read(self) -> bytes:
        """The body.

        Raises:
            aiohttp.web.HTTPRequestEntityTooLarge, aiohttp.web.RequestPayloadError.
        """

    def __getitem__(self, key: web.RequestKey[T], /) -> T: ...

    def __setitem__(self, key: web.RequestKey[T], value: T, /) -> None: ...

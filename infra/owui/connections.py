"""The OpenAI connections of an Open WebUI (``routers/openai.py``): which are ours, and what they
should be.

Open WebUI keeps them as three lists side by side; here each is one thing. Nothing here calls.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from infra.owui.change import Facts, Secret
from infra.owui.target import Gateway, Target

USER_HEADER, USER = "X-OpenWebUI-User-Id", "{{USER_ID}}"
MARK = "X-Vestibule-Message"
WAIT, WAIT_S = "X-Vestibule-Wait", 1800
"""So many seconds a chat that has no turn may wait at the gateway: in a request pool each has none,
elsewhere those that go round the Function. As long as the Function's ``max_wait_s``."""
HEADERS = {MARK: "{{MESSAGE_ID}}", "X-Vestibule-Task": "{{TASK}}", WAIT: str(WAIT_S)}
"""Sent with each request of our connections; Open WebUI fills them in (``utils/headers.py``)."""
NOTE = "vestibule_switched_on_openai_api"
"""In the settings of our connections, when there was none before us; for ``uninstall``."""

Json = dict[str, Any]


def headers_of(jwt: bool, wait: str = str(WAIT_S)) -> dict[str, str]:
    """Our headers. A signed JWT, which Open WebUI adds by itself, names the user instead of the
    plain header."""
    ours = HEADERS | {WAIT: wait}
    return ours if jwt else {USER_HEADER: USER, **ours}


@dataclass(frozen=True)
class Connection:
    """One OpenAI connection; ``config`` holds everything but address and key."""

    url: str
    key: str = field(repr=False)
    config: Json

    @property
    def headers(self) -> dict[str, str]:
        """What Open WebUI adds to each request."""
        return dict(self.config.get("headers") or {})

    @property
    def ours(self) -> bool:
        """Whether an install of ours made it, or made it ours."""
        return MARK in self.headers

    @property
    def enabled(self) -> bool:
        """Whether Open WebUI uses it."""
        return bool(self.config.get("enable", True))

    def facts(self) -> Facts:
        """As a person reads it."""
        others = {k: v for k, v in self.config.items() if k not in ("headers", "enable", NOTE)}
        shown: dict[str, object] = {"key": Secret(self.key), "enabled": self.enabled, **others}
        return shown | {f"header {name}": value for name, value in self.headers.items()}

    def gated(self, target: Target) -> "Connection":
        """The same with our headers; an administrator's other headers stay, and so does a time to
        wait that they chose."""
        kept = {k: v for k, v in self.headers.items() if (k, v) != (USER_HEADER, USER)}
        wait = kept.get(WAIT, str(min(WAIT_S, target.wait_limit)))
        headers = {**kept, **headers_of(target.jwt, wait)}
        return replace(self, config=self.config | {"headers": headers})


@dataclass(frozen=True)
class Connections:
    """All of them, in Open WebUI's order, and whether it uses any."""

    enabled: bool
    all: tuple[Connection, ...]

    @classmethod
    def of(cls, config: Json) -> "Connections":
        """From ``GET /openai/config``."""
        urls = list(config.get("OPENAI_API_BASE_URLS") or [])
        keys = [*(config.get("OPENAI_API_KEYS") or []), *[""] * len(urls)]
        # Older versions filed the settings under the address.
        stored = config.get("OPENAI_API_CONFIGS") or {}
        configs = [stored.get(str(i), stored.get(url)) or {} for i, url in enumerate(urls)]
        every = zip(urls, keys, configs, strict=False)
        return cls(
            bool(config.get("ENABLE_OPENAI_API")),
            tuple(Connection(url, key, dict(settings)) for url, key, settings in every),
        )

    def body(self) -> Json:
        """For ``POST /openai/config/update``."""
        return {
            "ENABLE_OPENAI_API": self.enabled,
            "OPENAI_API_BASE_URLS": [one.url for one in self.all],
            "OPENAI_API_KEYS": [one.key for one in self.all],
            "OPENAI_API_CONFIGS": {
                str(i): one.config for i, one in enumerate(self.all) if one.config
            },
        }

    @property
    def ours(self) -> Iterator[tuple[int, Connection]]:
        """Ours, with their places."""
        return ((i, one) for i, one in enumerate(self.all) if one.ours)

    def gated(self, target: Target, old: Json, new: Json) -> "Connections":
        """With a connection for each gateway that was named, and our headers on all of ours.

        ``old`` and ``new`` are the Function's valves. What of ours has the Function's old key gets
        its new one, so that a key that changed needs to be named once.
        """
        named = target.gateways or (Gateway(self._unnamed(target), target.key, target.prefix_id),)
        every = self._moved(target, old.get("admission_url"))
        for i, one in enumerate(every):
            if one.ours:
                key = new["service_key"] if one.key == old.get("service_key") else one.key
                every[i] = replace(one, key=key).gated(target)
        for gateway in named:
            place = next((i for i, one in enumerate(every) if _same(one.url, gateway.url)), None)
            if place is None:
                place = len(every)
                every.append(Connection(f"{gateway.url}/v1", "", {"auth_type": "bearer"}))
            every[place] = _named(every[place], gateway).gated(target)
        if self.enabled:
            return Connections(True, tuple(every))
        noted = (replace(c, config=c.config | {NOTE: True}) if c.ours else c for c in every)
        return Connections(True, tuple(noted))

    def without(self, which: Iterable[int]) -> "Connections":
        """The others, exactly as they are."""
        gone = set(which)
        left = tuple(one for i, one in enumerate(self.all) if i not in gone)
        none_left = not any(one.ours for one in left)
        undone = none_left and any(self.all[i].config.get(NOTE) for i in gone)
        return Connections(self.enabled and not undone, left)

    def _moved(self, target: Target, former: str | None) -> list[Connection]:
        """All; ours to the admission that the Function has asked so far goes along with it, unless
        there is one at the new address."""
        new = target.admission
        if not former or new not in [gateway.url for gateway in target.gateways]:
            return list(self.all)
        if any(_same(one.url, new) for one in self.all):
            return list(self.all)
        return [
            replace(one, url=f"{new}/v1") if one.ours and _same(one.url, former) else one
            for one in self.all
        ]

    def _unnamed(self, target: Target) -> str:
        """The gateway that is meant when none was named: ours if there is one, else this one."""
        ours = [one.url for _, one in self.ours]
        near = [url for url in ours if _same(url, target.here)]
        return base((near or ours)[0] if ours else target.here)


def base(url: str) -> str:
    """A gateway's address, without what Open WebUI needs at its end."""
    return url.rstrip("/").removesuffix("/v1")


def _same(one: str, other: str) -> bool:
    return base(one) == base(other)


def _named(one: Connection, gateway: Gateway) -> Connection:
    prefix = {} if gateway.prefix_id is None else {"prefix_id": gateway.prefix_id}
    return replace(one, key=gateway.key, config={**one.config, **prefix, "enable": True})

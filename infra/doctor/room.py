"""Where one rule is asked: callers, a pool, and users nobody else has.

Whatever is made in a room is gone when the room is left.
"""

import asyncio
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from infra.doctor.deployment import Caller, Deployment, Reply
from infra.doctor.rule import Broken, Skipped

KEY_LIFE_S = 900  # of the keys made here: also what nobody could take away ends
PAUSES_S = (0.2, 0.5, 1.0, 2.0)  # between tries: a busy deployment is no reason to leave things


class Room:
    """One rule's place in a deployment."""

    def __init__(
        self, deployment: Deployment, run: str, pool: str, settings: Mapping[str, Any]
    ) -> None:
        """``run``: begins the name of everything that is made here."""
        self.deployment, self.pool, self.settings = deployment, pool, settings
        self.admin, self.service = deployment.admin, deployment.service
        self.nobody = deployment.nobody
        self.name = f"{run}-{secrets.token_hex(4)}"
        self._made: list[tuple[str, str]] = []  # the calls that take it away, the last first
        self._made_keys = False

    def user(self, name: str = "ada") -> str:
        """A user id that nobody else has."""
        return f"{self.name}-{name}"

    def path(self, verb: str, user: str, query: str = "") -> str:
        """``/queue/VERB/USER`` in this pool."""
        return f"/queue/{verb}/{user}?pool={self.pool}{query}"

    def in_pool(self, path: str) -> str:
        """``path`` with this pool in its query."""
        return f"{path}{'&' if '?' in path else '?'}pool={self.pool}"

    async def ask(self, verb: str, user: str, **body: Any) -> Reply:
        """``POST /queue/VERB/USER`` with the service key."""
        return await self.service("POST", self.path(verb, user), body)

    async def join(self, user: str, **body: Any) -> dict[str, Any]:
        """The ticket view of a join, which must succeed."""
        return (await self.ask("join", user, **body)).good()

    async def status(self, user: str) -> dict[str, Any]:
        """The ticket view, which must be there."""
        return (await self.service("GET", self.path("status", user))).good()

    async def metrics(self) -> dict[str, Any]:
        """The numbers of this pool."""
        return (await self.service("GET", self.in_pool("/queue/metrics"))).good()

    async def put(self, **settings: Any) -> dict[str, Any]:
        """Change this pool."""
        return (await self.admin("PUT", f"/admin/pools/{self.pool}", settings)).good()

    async def new_key(self, kind: str, **facts: Any) -> Reply:
        """``POST /admin/keys``; the key is taken away when the room is left."""
        self._made_keys = True
        body = {"kind": kind, "label": self.name, "expires_in": KEY_LIFE_S, **facts}
        return await self.admin("POST", "/admin/keys", body)

    async def key(self, kind: str, **facts: Any) -> tuple[Caller, dict[str, Any]]:
        """A caller with a new key, and what its maker was told."""
        told = (await self.new_key(kind, **facts)).good(201)
        return self.nobody.with_key(told["key"]), told

    def take_away(self, path: str, method: str = "DELETE") -> None:
        """Call this when the room is left; what it names may be gone by then."""
        self._made.append((method, path))

    def checks_users(self) -> None:
        """Raises Skipped where anybody may do anything."""
        if not self.deployment.checks_users:
            raise Skipped("this deployment checks no users (VESTIBULE_AUTH=off)")

    async def leave(self) -> list[str]:
        """Take away what was made, but for tickets, which end with their pool; what is still
        there."""
        keys = await self._keys() if self._made_keys else []
        return await still_there(self.admin, [*keys, *reversed(self._made)])

    async def _keys(self) -> list[tuple[str, str]]:
        """The keys made here, by their label: who was told to stop may not know their ids."""
        try:
            found = (await answered(self.admin, "GET", "/admin/keys")).good()["keys"]
            mine = [key["id"] for key in found if key["label"] == self.name]
        except (Broken, Skipped, LookupError, TypeError):
            return []  # they end by themselves
        return [("DELETE", f"/admin/keys/{identity}") for identity in mine]


async def still_there(admin: Caller, calls: Iterable[tuple[str, str]]) -> list[str]:
    """Take away by these methods and paths; the paths of what could not be."""
    return [path for method, path in calls if not await _gone(admin, method, path)]


async def _gone(admin: Caller, method: str, path: str) -> bool:
    try:
        return (await answered(admin, method, path)).status in (200, 404)
    except (Broken, Skipped):
        return False


async def answered(admin: Caller, method: str, path: str, body: Any = None) -> Reply:
    """The answer to a call that may be repeated: asked again while it is 5xx, or there is none.

    Raises:
        Broken, Skipped: as the last try.
    """
    for pause_s in PAUSES_S:
        with suppress(Broken, Skipped):
            reply = await admin(method, path, body)
            if reply.status < 500:
                return reply
        await asyncio.sleep(pause_s)
    return await admin(method, path, body)

"""This process's copy of who may call: API keys, projects, priorities, limits, signing keys.

A request is checked against the copy alone, so it costs no round trip, and while Redis is away
every known key goes on. The copy is renewed four times a second: a deleted key stops everywhere
within a second. A key that is not in it is looked for at once, but strangers can cause only so many
looks.
"""

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from admission.accounting.limits import Limits, row_of
from admission.auth.callers import Caller, Kind, hash_key
from admission.auth.tokens import Tokens
from admission.errors import StoreUnavailable
from admission.signing import SigningKey
from admission.store.key_store import KeyStore, Table

REFRESH_S = 0.25
LOOKS = 20  # for keys nobody knows, between two renewals; then a new key waits for the next
PROJECT_ID = re.compile(r"[a-z0-9-]{1,64}")
KEY_PREFIX = "vst_"  # then the kind: scanners for leaked secrets can find our keys


@dataclass(frozen=True)
class ApiKey:
    """A key as it is kept: everything but its text."""

    id: str  # the first 24 digits of the hash: 96 bits, which no two keys share
    hash: str
    kind: str
    label: str
    created_ms: int
    expires_ms: int | None = None
    user: str | None = None
    project: str | None = None
    priority: str | None = None


@dataclass(frozen=True)
class Project:
    """Whom keys are made for: a team, a course."""

    id: str
    label: str
    created_ms: int


_KEY = msgspec.json.Decoder(ApiKey)
_PROJECT = msgspec.json.Decoder(Project)
_LIMITS = msgspec.json.Decoder(Limits)


def key_id(digest: str) -> str:
    """The id of the key with this hash."""
    return digest[:24]


class Keyring:
    """Keys of the settings, and a copy of those in Redis."""

    def __init__(self, store: KeyStore, fixed: Mapping[str, Caller], tokens: Tokens) -> None:
        """``fixed``: callers by the hash of their key, which come from the settings. ``tokens``
        gets the signing keys, unless it has some already."""
        self._store = store
        self._fixed = dict(fixed)
        self._kept: dict[str, tuple[Caller, float]] = {}  # by hash, with the end in s since 1970
        self._key_rows: dict[str, str] = {}  # what ``keys`` was read from
        self._tokens = tokens
        self._seen: dict[str, str | None] = {}
        self._taking: dict[Table, Callable[[dict[str, str]], None]] = {
            "keys": self._take_keys,
            "projects": self._take_projects,
            "priorities": self._take_priorities,
            "limits": self._take_limits,
        }
        if not tokens.ready:
            self._taking["signing_keys"] = self._take_signing_keys
        self._one_at_a_time = asyncio.Lock()
        self._looks_left = LOOKS
        self.keys: dict[str, ApiKey] = {}  # by id
        self.projects: dict[str, Project] = {}  # by id
        self.priorities: dict[str, str] = {}  # the class an admin gave a user
        self.limits: dict[str, Limits] = {}  # by row (accounting.limits)
        self.signing_keys: dict[int, SigningKey] = {}  # by number, in the order they were made

    async def load(self) -> None:
        """Read everything; make the first signing key if nobody has.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        await self.refresh()
        if not self._tokens.ready:
            now_ms = int(time.time() * 1000)
            first = SigningKey.fresh(now_ms, signs_from_ms=now_ms)
            await self._publish(1, first)  # or another process was faster
            await self.refresh()

    async def refresh(self) -> None:
        """Read what changed since the last time.

        Raises:
            StoreUnavailable: the copy stands.
        """
        async with self._one_at_a_time:
            versions = await self._store.versions()
            for table, take in self._taking.items():
                if table not in self._seen or versions.get(table) != self._seen[table]:
                    take(await self._store.rows(table))
                    self._seen[table] = versions.get(table)

    async def keep_fresh(self) -> None:
        """Refresh until cancelled; while Redis is away the last copy stands."""
        while True:
            self._looks_left = LOOKS
            with suppress(StoreUnavailable):
                await self.refresh()
            await asyncio.sleep(REFRESH_S)

    async def look_for(self, text: str) -> None:
        """Read again when ``text`` could be a key, or a token of a signer, that is new.

        Raises:
            StoreUnavailable: it could be, and nobody can tell.
        """
        could_be = text.startswith(KEY_PREFIX) or self._tokens.has_unknown_signer(text)
        if could_be and self._looks_left > 0 and self.find(hash_key(text)) is None:
            self._looks_left -= 1
            await self.refresh()

    def find(self, digest: str) -> Caller | None:
        """Whose key has this hash, and is still good."""
        caller = self._fixed.get(digest)
        if caller is not None:
            return caller
        kept = self._kept.get(digest)
        return kept[0] if kept is not None and kept[1] > time.time() else None

    # --- changes: they hold here at once, and in every other process within a second -------------

    async def issue(
        self,
        kind: Kind,
        *,
        label: str,
        user: str | None = None,
        project: str | None = None,
        priority: str | None = None,
        life_s: int | None = None,
    ) -> tuple[str, ApiKey]:
        """A new key: its text, which nobody can read again, and what is kept of it."""
        text = f"{KEY_PREFIX}{kind}_{secrets.token_urlsafe(32)}"
        digest, now_ms = hash_key(text), int(time.time() * 1000)
        expires_ms = None if life_s is None else now_ms + life_s * 1000
        key = ApiKey(
            key_id(digest), digest, kind, label, now_ms, expires_ms, user, project, priority
        )
        await self._store.put("keys", key.id, _written(key))
        await self.refresh()
        return text, key

    async def withdraw(self, identity: str) -> bool:
        """Delete a key and its limits; False when there is none of this id."""
        withdrawn = await self._drop("keys", identity)
        await self._drop("limits", row_of("key", identity))
        return withdrawn

    async def keep_project(self, identity: str, label: str) -> Project:
        """Make a project, or give it another label."""
        await self.refresh()
        known = self.projects.get(identity)
        made_ms = known.created_ms if known else int(time.time() * 1000)
        project = Project(identity, label, made_ms)
        await self._store.put("projects", identity, _written(project))
        await self.refresh()
        return project

    async def drop_project(self, identity: str) -> bool:
        """Delete a project and its limits; False when there is none of this id."""
        dropped = await self._drop("projects", identity)
        await self._drop("limits", row_of("project", identity))
        return dropped

    async def prefer(self, user: str, priority: str) -> None:
        """Give a user a priority class, which counts from the next join on."""
        await self._store.put("priorities", user, priority)
        await self.refresh()

    async def prefer_no_more(self, user: str) -> bool:
        """Take the class away; False when there was none."""
        return await self._drop("priorities", user)

    async def limit(self, row: str, limits: Limits) -> None:
        """Set what one user, project or key may use, or all the others (``limits.row_of``)."""
        await self._store.put("limits", row, _written(limits))
        await self.refresh()

    async def limit_no_more(self, row: str) -> bool:
        """Take a row of limits away; False when there was none."""
        return await self._drop("limits", row)

    async def rotate(self, signs_in_s: int) -> SigningKey:
        """A new signing key: in the key set now, the signer in ``signs_in_s``. The one before is
        accepted until its last token has ended; older ones are forgotten."""
        await self.refresh()
        now_ms = int(time.time() * 1000)
        key = SigningKey.fresh(now_ms, now_ms + signs_in_s * 1000)
        number = max(self.signing_keys, default=0) + 1
        while not await self._publish(number, key):
            number += 1
        accepted = {kept.kid for kept in self._tokens.accepted()}
        for old, kept in self.signing_keys.items():
            if kept.kid not in accepted:
                await self._store.drop("signing_keys", str(old))
        await self.refresh()
        return key

    async def _publish(self, number: int, key: SigningKey) -> bool:
        """False when another process took the number at the same moment."""
        return await self._store.put("signing_keys", str(number), key.written(), new=True)

    async def withdraw_signing_key(self, kid: str) -> bool:
        """Delete a signing key and with it all its tokens, at once; False when there is none."""
        numbers = [number for number, key in self.signing_keys.items() if key.kid == kid]
        return bool(numbers) and await self._drop("signing_keys", str(numbers[0]))

    async def _drop(self, table: Table, row: str) -> bool:
        dropped = await self._store.drop(table, row)
        await self.refresh()
        return dropped

    # --- the copy --------------------------------------------------------------------------------

    def _take_keys(self, rows: dict[str, str]) -> None:
        """Only what changed: one new key among ten thousand must not hold up everybody's calls."""
        for row in self._key_rows.keys() - rows.keys():
            del self._kept[self.keys.pop(row).hash]
        for row, text in rows.items():
            if self._key_rows.get(row) != text:
                key = self.keys[row] = _KEY.decode(text)
                self._kept[key.hash] = (_caller_by(key), _end_s(key))
        self._key_rows = rows

    def _take_projects(self, rows: dict[str, str]) -> None:
        self.projects = {row: _PROJECT.decode(text) for row, text in rows.items()}

    def _take_priorities(self, rows: dict[str, str]) -> None:
        self.priorities = rows

    def _take_limits(self, rows: dict[str, str]) -> None:
        self.limits = {row: _LIMITS.decode(text) for row, text in rows.items()}

    def _take_signing_keys(self, rows: dict[str, str]) -> None:
        """None at all is a Redis that lost its data: tokens go on with the keys we have."""
        if rows:
            read = {int(row): SigningKey.read(text) for row, text in rows.items()}
            self.signing_keys = dict(sorted(read.items()))
            self._tokens.use(list(self.signing_keys.values()))


def _written(row: ApiKey | Project | Limits) -> str:
    return msgspec.json.encode(row).decode()


def _caller_by(key: ApiKey) -> Caller:
    return Caller(Kind(key.kind), key.user, project=key.project, priority=key.priority, key=key.id)


def _end_s(key: ApiKey) -> float:
    return float("inf") if key.expires_ms is None else key.expires_ms / 1000

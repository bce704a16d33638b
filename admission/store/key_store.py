"""The tables of who may call: API keys, projects, priorities, limits, signing keys.

Each is a Redis hash that every process copies. A change gives its table a new version in the same
script, so a process that sees the old version knows that its copy is whole. Knows text; what the
rows say is the keyring's.
"""

import secrets
from typing import Any, Literal

from redis.asyncio import Redis

from admission.store import names
from admission.store.connection import answering

Table = Literal["keys", "projects", "priorities", "limits", "signing_keys"]

_KEY_OF: dict[Table, str] = {
    "keys": names.KEYS_KEY,
    "projects": names.PROJECTS_KEY,
    "priorities": names.PRIORITIES_KEY,
    "limits": names.LIMITS_KEY,
    "signing_keys": names.SIGNING_KEYS_KEY,
}
_ROWS_AT_ONCE = 1000  # a long table is read in pages, between which Redis serves the queue

# KEYS: the table, the versions. ARGV: the table's name, its next version, the row, what to do with
# it ("put", "new": only when there is none, "drop"), its text. Answers how many rows changed.
_CHANGE = """
local changed = 1
if ARGV[4] == 'drop' then changed = redis.call('HDEL', KEYS[1], ARGV[3])
elseif ARGV[4] == 'new' then changed = redis.call('HSETNX', KEYS[1], ARGV[3], ARGV[5])
else redis.call('HSET', KEYS[1], ARGV[3], ARGV[5]) end
if changed == 1 then redis.call('HSET', KEYS[2], ARGV[1], ARGV[2]) end
return changed
"""


class KeyStore:
    """Reads and changes the tables. Every method raises StoreUnavailable when Redis is away."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def versions(self) -> dict[str, str]:
        """The version of each table that was ever changed."""
        with answering():
            found: Any = await self._redis.hgetall(names.VERSIONS_KEY)
        return {table.decode(): version.decode() for table, version in found.items()}

    async def rows(self, table: Table) -> dict[str, str]:
        """A whole table."""
        rows: dict[str, str] = {}
        with answering():
            async for row, text in self._redis.hscan_iter(_KEY_OF[table], count=_ROWS_AT_ONCE):
                rows[row.decode()] = text.decode()
        return rows

    async def put(self, table: Table, row: str, text: str, *, new: bool = False) -> bool:
        """Keep one row; with ``new`` only when there is none yet, else False."""
        return await self._change(table, row, "new" if new else "put", text)

    async def drop(self, table: Table, row: str) -> bool:
        """Forget one row; False when there was none."""
        return await self._change(table, row, "drop", "")

    async def _change(self, table: Table, row: str, what: str, text: str) -> bool:
        # Random, not counted: after a failover that lost changes a number could come twice.
        version = secrets.token_hex(8)
        keys = (_KEY_OF[table], names.VERSIONS_KEY)
        with answering():
            call: Any = self._redis.eval(_CHANGE, 2, *keys, table, version, row, what, text)
            return bool(await call)

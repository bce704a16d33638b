"""Reads what a worker answers about itself, up to a limit: an endless answer costs little.

Knows bytes; not what they say.
"""

from collections.abc import AsyncIterable

BYTES_MAX = 1_048_576  # a list of a thousand models is a tenth of it


async def read_small(pieces: AsyncIterable[bytes]) -> bytes:
    """The whole body, put together.

    Raises:
        ValueError: it is larger than ``BYTES_MAX``.
    """
    parts, size = [], 0
    async for part in pieces:
        size += len(part)
        if size > BYTES_MAX:
            raise ValueError(f"the answer is larger than {BYTES_MAX} bytes")
        parts.append(part)
    return b"".join(parts)

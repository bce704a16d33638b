"""Reads what a worker answers about itself, up to a limit: an endless answer costs little.

Knows bytes; not what they say.
"""

from aiohttp import ClientResponse

BYTES_MAX = 1_048_576  # a list of a thousand models is a tenth of it


async def read_small(answer: ClientResponse) -> bytes:
    """The whole body.

    Raises:
        ValueError: it is larger than ``BYTES_MAX``.
    """
    parts, size = [], 0
    async for part in answer.content.iter_any():
        size += len(part)
        if size > BYTES_MAX:
            raise ValueError(f"the answer is larger than {BYTES_MAX} bytes")
        parts.append(part)
    return b"".join(parts)

"""What the gateway adds to a request, beside others in front of the same canned model servers."""

from collections.abc import Sequence


async def main(words: Sequence[str] = ()) -> None:
    """Measure and print; the words are those of ``bench.gateway.run``."""
    from bench.gateway import run  # not for the servers and callers, which are processes of here

    await run.main(words)

"""Runs every benchmark, one after the other."""

import asyncio

from bench import gateway, scripts


def main() -> None:
    """Print each benchmark's table."""
    asyncio.run(scripts.main())
    asyncio.run(gateway.main())


if __name__ == "__main__":
    main()

"""``python -m bench``: all benchmarks one after the other, or those that are named."""

import argparse
import asyncio
from importlib import import_module

MODULES = ("scripts", "gateway", "http", "million", "eta", "audience", "handover", "slots")
"""Each has ``async def main()``, which prints a table."""


def main() -> None:
    """Run the benchmarks named on the command line, or all."""
    words = argparse.ArgumentParser(prog="python -m bench")
    words.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODULES))
    names = words.parse_args().names
    unknown = set(names) - set(MODULES)
    if unknown:
        words.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    for name in names or MODULES:
        asyncio.run(import_module(f"bench.{name}").main())


if __name__ == "__main__":
    main()

"""``python -m bench``: all benchmarks one after the other, or those that are named."""

import argparse
import asyncio
import sys
from importlib import import_module

MODULES = (
    "scripts",
    "gateway",
    "http",
    "million",
    "eta",
    "autoscale",
    "audience",
    "handover",
    "slots",
    "prefix",
    "functions",
)
"""Each has ``async def main()``, which prints a table; ``gateway``'s takes words of its own."""


def main() -> None:
    """Run the benchmarks named on the command line, or all."""
    words = argparse.ArgumentParser(prog="python -m bench")
    words.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODULES))
    line = sys.argv[1:]
    own = next((at for at, word in enumerate(line) if word.startswith("-") and at), len(line))
    names, others = words.parse_args(line[:own]).names, line[own:]
    if unknown := set(names) - set(MODULES):
        words.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    if others and names != ["gateway"]:
        words.error(f"{others[0]}: words of its own has only one benchmark, gateway")
    for name in names or MODULES:
        asyncio.run(import_module(f"bench.{name}").main(*([others] if others else [])))


if __name__ == "__main__":
    main()

"""``python -m bench.eta [SEEDS]``: every phase with seeds 1 to SEEDS (default 3)."""

import asyncio
import sys

from bench.eta import main
from bench.eta.tables import SEEDS

if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS))

"""``python -m bench.autoscale``."""

import asyncio

from bench.autoscale import main

if __name__ == "__main__":
    asyncio.run(main())

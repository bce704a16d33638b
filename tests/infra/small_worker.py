"""A worker in one process, with the demo model in it: a machine of the local provider that costs a
test little. Run by path; all it needs is in its environment."""

import asyncio
import os
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from aiohttp import web

from infra.addresses import free_port
from infra.demo_model import DemoModel
from worker_image import agent


async def _serve(port: int) -> None:
    runner = web.AppRunner(DemoModel(0).application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    at = free_port()
    threading.Thread(target=lambda: asyncio.run(_serve(at)), daemon=True).start()
    os.environ["VESTIBULE_VLLM_URL"] = f"http://127.0.0.1:{at}"
    os.environ.pop("VESTIBULE_MODEL", None)
    sys.exit(agent.main())

"""How a command in the foreground is asked to stop."""

import asyncio
import signal


def stop_event() -> asyncio.Event:
    """An event that SIGINT (Ctrl-C) and SIGTERM set, in the running loop."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop

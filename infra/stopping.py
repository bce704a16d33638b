"""How a command in the foreground is asked to stop."""

import asyncio
import signal


def stop_event() -> asyncio.Event:
    """An event that SIGINT (Ctrl-C), SIGTERM and SIGHUP (its terminal closes) set."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop

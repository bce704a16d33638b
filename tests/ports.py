"""Ports for what the tests start as processes of their own."""

import random
import socket

# Below those that systems give to clients (from 32768 on Linux, 49152 elsewhere): else somebody's
# connection could have it before the process listens. A cluster's server also takes the port
# 10,000 above its own, which stays below them, too.
PORTS = range(10_000, 20_000)
_chance = random.SystemRandom()  # no seed of a test gives two processes the same


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    while True:
        port = _chance.choice(PORTS)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port

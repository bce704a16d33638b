"""``vestibule gateway``: ``/v1`` and ``/auth`` alone, over the Redis of ``vestibule admission``.

It keeps nothing: any number may run, on as many machines as you like.
"""

import argparse

from admission.app import GATEWAY_ROUTES
from infra import admission

GATEWAY = admission.Part("gateway", GATEWAY_ROUTES)


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule gateway``."""
    parser.description = (
        "Run the gateway alone, /v1 and /auth, over the Redis of REDIS_URL. Any number may run, on"
        " as many machines as you like, beside `vestibule admission` and `vestibule scheduler`."
        " While no worker is ready nobody is admitted."
    )
    admission.add_words(parser)
    parser.set_defaults(part=GATEWAY, needs_worker=True, run=admission.run)

"""Log lines a person reads and a machine parses: the event first, then ``key=value``."""

import logging
import re
import sys
import time

_PLAIN = re.compile(r"[!#-<>-~]+")  # printable ASCII without space, quote and equals sign; the most


def event(
    logger: logging.Logger, name: str, /, level: int = logging.INFO, **fields: object
) -> None:
    """Log one event; fields that are None are left out. Never pass prompt text or keys."""
    if logger.isEnabledFor(level):
        pairs = (f"{key}={_quoted(value)}" for key, value in fields.items() if value is not None)
        logger.log(level, " ".join((name, *pairs)))


def _quoted(value: object) -> str:
    text = str(value)
    if _PLAIN.fullmatch(text) or (text and all(c.isprintable() and c not in ' "=' for c in text)):
        return text
    return '"' + text.encode("unicode_escape").decode().replace('"', r"\"") + '"'


def configure(level: int = logging.INFO) -> None:
    """Send log lines to standard error, with the time in UTC to the millisecond."""
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # A line for each run of a tick, and one each second while a run takes long, would drown
    # everything else; a tick says itself when it fails or is cut off.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)

"""Numbers on the command line, with their bounds: `argparse` says what is wrong with one."""

import argparse

from admission.instance import COMMAND_INSTANCES_MAX

SECONDS_MAX = 86_400


def seconds(text: str) -> int:
    """A span for what runs, as argparse reads it."""
    return _within(text, 0, SECONDS_MAX)


def machines(text: str) -> int:
    """How many at once, as argparse reads it."""
    return _within(text, 1, COMMAND_INSTANCES_MAX)


def _within(text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text} is no number from {least} to {most}")
    return int(text)

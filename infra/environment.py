"""The environment as every command reads it: one list of names, whoever of us reads them."""

import os
from collections.abc import Mapping

from admission.settings import Settings, read_settings
from worker_image import agent

AGENT_SETTINGS = frozenset(name for name, *_ in agent.OPTIONS.values())
"""Names that only an agent reads."""


def settings(overriding: Mapping[str, str | None] | None = None) -> Settings:
    """Settings of the environment, over which ``overriding`` wins where it is not None.

    Raises:
        SettingsError: lists every bad value and every unknown name.
    """
    given = {name: value for name, value in (overriding or {}).items() if value is not None}
    return read_settings({**os.environ, **given}, also_known=AGENT_SETTINGS)


def passed_on(changes: Mapping[str, str]) -> dict[str, str]:
    """The environment for another process of ours, with these settings instead."""
    return {**os.environ, **changes}

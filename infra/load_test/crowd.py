"""Who comes when, what they say, and how they go: from a seed, so that a crowd can come again.

Knows no service.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from infra.load_test.chat import Said

PATIENCE_S = (1.0, 10.0)  # after which who vanishes or presses Stop does so in the line
_GOLDEN = (math.sqrt(5) - 1) / 2  # steps of it spread evenly, so also of a few all kinds come

Ending = Literal["leave", "vanish", "stop"]


@dataclass(frozen=True)
class Manners:
    """What people are like; shares from 0 to 1, of whom the rest leave, and take slots at once."""

    messages: int = 2
    think_s: float = 2.0  # between an answer and the next message, on average
    vanish: float = 0.0  # close the laptop: no call any more, and no leave
    stop: float = 0.0  # press Stop in the line, or at the first words of the last answer
    confirm: float = 0.0  # are asked before they get the slot


@dataclass(frozen=True)
class Coming:
    """One person's plan."""

    user: str
    at_s: float  # since the beginning
    says: tuple[Said, ...]
    ending: Ending = "leave"
    confirms: bool = False
    patience_s: float = math.inf
    think_s: float = 0.0


class Crowd:
    """Makes plans; the users' names begin with ``name``."""

    def __init__(self, name: str, manners: Manners, seed: int) -> None:
        self._name, self._manners, self._chance = name, manners, Random(seed)
        self._kind = self._chance.random()

    def single(self, user: str) -> list[Coming]:
        """One, now."""
        return [self._one(user, 0.0)]

    def group(self, size: int) -> list[Coming]:
        """All at once."""
        return [self._one(self._user(n), 0.0) for n in range(size)]

    def load(self, users: int, batch_size: int, delay_s: float) -> list[Coming]:
        """A batch every ``delay_s``."""
        return [self._one(self._user(n), n // batch_size * delay_s) for n in range(users)]

    def replay(self, asked: Sequence[tuple[float, Said]], each: int) -> list[Coming]:
        """Real requests: with every ``each``-th of them somebody comes, and says that one and those
        that follow it."""
        plans = []
        for number, at in enumerate(range(0, len(asked), each)):
            says = [said for _, said in asked[at : at + self._manners.messages]]
            plans.append(self._one(self._user(number), asked[at][0], says))
        return plans

    def _user(self, number: int) -> str:
        return f"{self._name}-{number}"

    def _one(self, user: str, at_s: float, says: Sequence[Said] = ()) -> Coming:
        manners, chance = self._manners, self._chance
        kind = self._kind = (self._kind + _GOLDEN) % 1.0
        ending: Ending = "leave"
        if kind < manners.vanish + manners.stop:
            ending = "vanish" if kind < manners.vanish else "stop"
        return Coming(
            user=user,
            at_s=at_s,
            says=tuple(says) or (Said(),) * manners.messages,
            ending=ending,
            confirms=chance.random() < manners.confirm,
            patience_s=math.inf if ending == "leave" else chance.uniform(*PATIENCE_S),
            think_s=chance.uniform(0.5, 1.5) * manners.think_s,
        )

"""What all chats of this process share while they wait. Lost at a restart, and worth no more."""

import asyncio
from dataclasses import dataclass, field

from owui_pipeline.coming_back import Returns
from owui_pipeline.webui import Attendance

POOL_KNOWN_S = 300.0  # a model may move to another pool


class Models:
    """What this process learned about models: their pools, and which are not Vestibule's."""

    def __init__(self) -> None:
        self._pools: dict[str, tuple[str, float]] = {}
        self._elsewhere: set[str] = set()

    def learn(self, model: str, pool: str) -> None:
        """Admission gives this model's turns, in this pool."""
        self._pools[model] = (pool, asyncio.get_running_loop().time())
        self._elsewhere.discard(model)

    def learn_elsewhere(self, model: str) -> None:
        """It does not: the model stays usable while admission cannot be asked."""
        self._pools.pop(model, None)
        self._elsewhere.add(model)

    def pool(self, model: str) -> str:
        """The model's pool, "" when that is not known for sure."""
        pool, since_s = self._pools.get(model, ("", 0.0))
        return pool if asyncio.get_running_loop().time() - since_s < POOL_KNOWN_S else ""

    def last_pool(self, model: str) -> str:
        """The pool it had when it was last asked for, "" when it never was."""
        return self._pools.get(model, ("", 0.0))[0]

    def is_elsewhere(self, model: str) -> bool:
        """Whether admission said that this model is not its business."""
        return model in self._elsewhere


@dataclass(frozen=True)
class Lobby:
    """Who is connected, what is known of the models, and who may come back."""

    attendance: Attendance = field(default_factory=Attendance)
    models: Models = field(default_factory=Models)
    returns: Returns = field(default_factory=Returns)

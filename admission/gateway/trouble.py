"""What this process met with when it asked workers: who did not answer, and who was full.

In memory and short-lived; the registry says the rest. A worker that could not be reached rests for
a moment that grows; then one request tries it, and the others follow once it has answered. A full
one is asked after all others for a moment, and is never taken for dead.
"""

from collections.abc import Iterable
from dataclasses import dataclass

REST_S = 0.25
REST_MAX_S = 8.0  # a worker that stays away is out of the registry within 30 s (DESIGN section 9)
FULL_S = 1.0


@dataclass
class _Failures:
    count: int = 0
    until_s: float = 0.0
    trying: bool = False


class Trouble:
    """Of all workers. Times are of any clock that never goes back."""

    def __init__(self) -> None:
        self._failed: dict[str, _Failures] = {}
        self._full: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._failed or self._full)

    def usable(self, workers: Iterable[str], now_s: float) -> list[str]:
        """Those of ``workers`` to choose from.

        When all of them rest, those that nobody is just trying: a single worker that was away for
        a moment is found again at once, and one that swallows connections holds up one request.
        """
        known = list(workers)
        awake = [name for name in known if not self._rests(name, now_s)]
        awake = awake or [name for name in known if not self._failed[name].trying]
        return [name for name in awake if self._full.get(name, now_s) <= now_s] or awake

    def try_again(self, worker: str) -> bool:
        """A request goes to ``worker``; True when it is the one that tries it."""
        failures = self._failed.get(worker)
        if failures is None or failures.trying:
            return False
        failures.trying = True
        return True

    def unreachable(self, worker: str, now_s: float) -> None:
        """It could not be reached. Of those who find out while it rests none counts more."""
        failures = self._failed.setdefault(worker, _Failures())
        if now_s >= failures.until_s:
            failures.count += 1
            failures.until_s = now_s + min(REST_S * 2 ** (failures.count - 1), REST_MAX_S)
        failures.trying = False

    def not_told(self, worker: str) -> None:
        """The request that tried it ended before it was known; the next one tries."""
        if failures := self._failed.get(worker):
            failures.trying = False

    def answers(self, worker: str) -> None:
        """It can be reached."""
        self._failed.pop(worker, None)

    def full(self, worker: str, now_s: float) -> None:
        """It said so itself, so it can be reached."""
        self.answers(worker)
        self._full[worker] = now_s + FULL_S

    def forget(self, known: Iterable[str], now_s: float) -> None:
        """Drop what is over, and workers that are not ``known`` any more."""
        there = set(known)
        self._failed = {name: f for name, f in self._failed.items() if name in there}
        self._full = {name: s for name, s in self._full.items() if name in there and s > now_s}

    def _rests(self, worker: str, now_s: float) -> bool:
        failures = self._failed.get(worker)
        return failures is not None and (failures.trying or now_s < failures.until_s)

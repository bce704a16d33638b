"""When somebody who cannot stay attached should ask for their ticket again. Pure.

Soon near the front, and less often behind; always well inside the time a draft waits for its user,
and the time an absent one keeps the place.
"""

from admission.domain import PoolPolicy, Status, Ticket

SOONEST_S = 2.0
PLACE_S = 2.0  # for each place: who stands n-th asks every 2n seconds at most this seldom
SHARE = 0.1  # of the estimated wait, of what is left of a draft or session: 10 % late at most
JITTER = 0.2  # up or down, so that those who came together do not ask together
OF_DRAFT, OF_GRACE = 1 / 4, 1 / 2  # the longest, with jitter still inside a third and 60 %


def again_s(ticket: Ticket, policy: PoolPolicy, chance: float) -> float | None:
    """Seconds until the next look at this ticket; None when there is nothing to come.

    Args:
        policy: of its pool.
        chance: 0 to 1, another one each time.
    """
    if ticket.status is Status.DISCONNECTED:
        return None
    longest_s = min(policy.draft_ms * OF_DRAFT, policy.grace_ms * OF_GRACE) / 1000
    wanted_s = min(_by_place(ticket), _by_time(ticket), longest_s)
    soonest_s = min(SOONEST_S, longest_s)
    return max(wanted_s, soonest_s) * (1 + JITTER * (2 * chance - 1))


def _by_place(ticket: Ticket) -> float:
    return float("inf") if ticket.position is None else ticket.position * PLACE_S


def _by_time(ticket: Ticket) -> float:
    left_ms = ticket.wait_ms
    if ticket.expires_ms is not None:
        left_ms = ticket.expires_ms - ticket.now_ms
    return float("inf") if left_ms is None else left_ms / 1000 * SHARE

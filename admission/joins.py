"""A place in the queue, taken for a caller: in which class, and what a refusal means to them."""

import uuid
from functools import partial

from admission import wire
from admission.asked import Asked
from admission.auth import Caller, Kind
from admission.domain import DEFAULT_PRIORITY, Ticket
from admission.errors import BadInput, Conflict, Forbidden, PoolPaused, QueueFull
from admission.keys import GATEKEEPER, STORE
from admission.outcomes import Joined, Refused

RETRY_FULL_S = 30  # a place may be free by then; nothing is promised


async def join(request: Asked, who: Caller, pool: str, user: str, wish: wire.JoinBody) -> Ticket:
    """The ticket of ``user``, a new one or the one they have. Without a class in the wish it is
    the user's own, where the pool has that.

    Raises:
        Forbidden, BadInput: a class that is not the caller's to name, or that the pool has not.
        Conflict: a request pool, and no request was named.
        QueueFull, PoolPaused, StoreUnavailable: nobody new now.
    """
    take = partial(
        request.app[STORE].join,
        pool,
        user,
        ticket=uuid.uuid4().hex,
        request=wish.request_id or "",
        auto_confirm=wish.auto_confirm,
        will_return=wish.will_return,
        client=wish.client or "",
    )
    own = request.app[GATEKEEPER].priority_of(who, user) or DEFAULT_PRIORITY
    outcome = await take(priority=_allowed(who, own, wish.priority))
    if outcome == Refused("unknown_class") and wish.priority is None:
        outcome = await take()  # the user's class is one of other pools
    match outcome:
        case Joined(ticket):
            return ticket
        case Refused("unknown_class"):
            raise BadInput(f"priority: pool {pool!r} has no such class", field="priority")
        case Refused("request_needed"):
            raise Conflict(
                "This pool gives a turn to each request: name it in request_id.",
                code="request_pool",
                field="request_id",
            )
        case Refused("full"):
            raise QueueFull(
                "The queue is full; nobody new can wait now.", retry_after_s=RETRY_FULL_S
            )
        case Refused():
            raise PoolPaused("This pool takes nobody new now.", retry_after_s=RETRY_FULL_S)


def _allowed(who: Caller, own: str, named: str | None) -> str:
    """The class of a new ticket: trusted callers may name any, others have the one that an admin
    gave the user or the key (``own``).

    Raises:
        Forbidden: a class that is not the caller's.
    """
    if named in (None, own) or who.kind in (Kind.SERVICE, Kind.ADMIN):
        return named or own
    raise Forbidden(f"priority: yours is {own!r}", field="priority")

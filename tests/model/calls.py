"""The calls on a plain pool, each with the answer it must give: (tag, ticket or details).

Knows the calls' rules; the tickets' own are in ``plain``.
"""

from typing import Any, NamedTuple

from tests.model.plain import ANSWER_MS, FINISHING_MS, PlainPool, Said, Turn


class Answer(NamedTuple):
    """What a call must answer; ``turn`` is the ticket whose view comes with it."""

    tag: str
    turn: Turn | None = None
    details: Any = None


class PlainCalls:
    """A pool and everything that may be asked of it."""

    def __init__(self, pool: PlainPool) -> None:
        self.pool = pool

    def join(
        self,
        user: str,
        ticket: str,
        request: str,
        priority: str,
        *,
        auto: bool,
        will_return: bool,
        client: str,
    ) -> Answer:
        pool = self.pool
        if pool.requests and not request:
            return Answer("request_needed")
        pool.begin()
        claims = [
            t
            for t in pool.turns
            if t.user == user
            and t.state != "disconnected"
            and (not pool.requests or t.request == request)
        ]
        if claims and (pool.class_of(priority) or claims[0].priority == priority):
            turn, tag = claims[0], "known"
            came_back = turn.skipped
        else:
            pool.offer()
            if pool.class_of(priority) is None:
                return Answer("unknown_class")
            over = pool.latest(user)
            if over and over.ticket_id == ticket:
                return Answer("known", over)  # a repeated call whose turn is over already
            if pool.policy.paused:
                return Answer("paused")
            limit = pool.policy.queue_limit
            crowd = sum(t.state == "waiting" for t in pool.turns)
            if limit is not None and crowd >= limit and pool.free() == 0:
                return Answer("full")
            turn, tag, came_back = pool.enter(user, request, priority), "joined", False
        turn.auto_confirm, turn.will_return = auto and not will_return, will_return
        turn.chats.add(client)
        if will_return:
            turn.present_until = None
        if turn.state == "waiting" and (turn.auto_confirm or came_back):
            pool.attach(turn)
        pool.offer()
        if tag == "joined" and turn.state == "waiting":
            pool.said.append(Said(user, "waiting"))
        return Answer(tag, turn)

    def confirm(self, user: str, named: str) -> Answer:
        pool = self.pool
        pool.begin()
        turn = pool.latest(user, named)
        if turn is None:
            pool.offer()
            return Answer("unknown")
        if named and named != turn.ticket_id:
            pool.offer()
            return Answer("stale", turn)
        tags = {"disconnected": "ended", "waiting": "waiting", "active": "active"}
        tag = tags.get(turn.state, "confirmed")
        if tag == "confirmed":
            pool.admit(turn)
        pool.offer()
        return Answer(tag, turn)

    def leave(self, user: str, client: str, named: str) -> Answer:
        pool = self.pool
        pool.begin()
        turn = pool.latest(user, named)
        if turn and named and named != turn.ticket_id:  # an older one, which is over
            older = (t for t in pool.turns if t.user == user and t.ticket_id == named)
            turn = next(older, None)
        if turn is None:
            pool.offer()
            return Answer("unknown")
        previous, ends = turn.state, turn.state != "disconnected"
        if client:
            was_last = self._detach(turn, client)
            ends = was_last and (pool.requests and ends or turn.state in ("waiting", "draft"))
        if ends:
            pool.finish_turn(turn, "left", pool.now)
        if not client and not named:
            self._end_all(user, "left")
        pool.offer()
        return Answer("left", turn, (previous, turn.state))

    def _detach(self, turn: Turn, client: str) -> bool:
        """That chat is over, also in what the user's last session left running."""
        was_last = client in turn.chats and turn.chats == {client}
        for each in {turn, self.pool.finishing(turn.user)} - {None}:
            assert each is not None
            each.chats.discard(client)
            each.answers.pop(client, None)
            self.pool.shorten(each)
        return was_last

    def _end_all(self, user: str, reason: str) -> None:
        for turn in [t for t in self.pool.turns if t.user == user]:
            if turn.state != "disconnected":
                self.pool.finish_turn(turn, reason, self.pool.now)

    def cancel(self, user: str, named: str) -> Answer:
        """Like a leave, and what still runs is cut."""
        pool = self.pool
        pool.begin()
        turn = pool.latest(user, named)
        if turn is None or (named and named != turn.ticket_id):
            pool.offer()
            return Answer("unknown")
        previous = turn.state
        if turn.state != "disconnected":
            pool.finish_turn(turn, "removed", pool.now)
        if not named:
            self._end_all(user, "removed")
        if cut := pool.finishing(user):
            cut.finishing_until = None
        pool.offer()
        return Answer("left", turn, (previous, "disconnected"))

    def heartbeat(self, user: str, client: str, named: str) -> Answer:
        pool = self.pool
        pool.begin()
        turn = pool.latest(user, named)
        if turn is None:
            pool.offer()
            return Answer("unknown")
        if turn.state == "waiting":
            if not client or client in turn.chats:
                pool.attach(turn)
        elif turn.state == "active" and (pool.requests or client):
            if client:
                turn.answers[client] = pool.now + ANSWER_MS
            pool.used(turn)
        rest = pool.finishing(user)
        if rest and rest.answers.get(client, 0) > pool.now:
            rest.answers[client] = pool.now + ANSWER_MS
            self._keep(rest)
        pool.offer()
        return Answer("ended" if turn.state == "disconnected" else "alive", turn)

    def _keep(self, turn: Turn) -> None:
        assert turn.ended_ms is not None
        lease = turn.answering_until(self.pool.now)
        turn.finishing_until = min(lease, turn.ended_ms + FINISHING_MS)

    def use(self, user: str, request: str, message: str, concurrency: int) -> Answer:
        pool, now = self.pool, self.pool.now
        pool.begin()
        pool.offer()
        mine = [t for t in pool.turns if t.user == user and t.readable(now)]
        if pool.requests:
            mine = [t for t in mine if t.request == request]
        if not mine:
            return Answer("refused")
        current, rest = mine[-1], pool.finishing(user)
        turn = current if current.state == "active" else rest
        if turn is None:
            return Answer("refused", current)
        running = {r for r, lease in turn.running.items() if lease > now}
        goes_on = request in running or (message and turn.answers.get(message, 0) > now)
        if turn is rest and not goes_on:
            return Answer("refused", current)
        if request not in running and len(running) >= concurrency:
            return Answer("busy", turn)
        turn.running[request] = now + ANSWER_MS
        if message:
            turn.answers[message] = now + ANSWER_MS
        if turn is rest:
            self._keep(turn)
            return Answer("pass", turn, None)
        pool.used(turn)
        return Answer("pass", turn, turn.session_until)

    def done(self, named: str, request: str) -> None:
        """That request is over, wherever in the user's sessions it was renewed last."""
        pool = self.pool
        pool.begin()
        if turn := next((t for t in pool.turns if t.ticket_id == named), None):
            for each in {turn, pool.latest(turn.user)} - {None}:
                assert each is not None
                each.running.pop(request, None)
                pool.shorten(each)
        pool.offer()

    def tick(self) -> int | None:
        self.pool.begin()
        self.pool.offer()
        return self.pool.next_ms()

    def configure(self, changes: dict[str, Any]) -> None:
        for name, value in changes.items():
            if value is None:
                self.pool.changed.pop(name, None)
            else:
                self.pool.changed[name] = value
        self.tick()

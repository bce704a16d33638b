"""A process of Open WebUI that died: what the next one says in the chats that waited in it.

The query runs on a real table of the columns it names; the modules around it stand in for those of
0.12.4, and tests/e2e/test_outages.py kills the real one.
"""

import asyncio
import sys
import time
import types
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import JSON, BigInteger, Executable, Result, Text, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from tests.owui.conftest import Json, Pages, WebUI, until

CUT_SHORT = "Your wait was cut short. Send your message again."
REDIS_TASK_TTL_S = 300  # env.py of Open WebUI
WAITS = {"description": "You are 3rd in line", "done": False, "cut_short": CUT_SHORT}
SAID = {"description": CUT_SHORT, "done": True, "hidden": False}
YEAR_S = 365 * 86_400


class Base(DeclarativeBase):
    """The tables of an Open WebUI."""


class ChatMessage(Base):
    """As in models/chat_messages.py, as far as the plugin uses it."""

    __tablename__ = "chat_message"
    id: Mapped[str] = mapped_column(Text, primary_key=True)
    chat_id: Mapped[str] = mapped_column(Text)
    user_id: Mapped[str | None] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text)
    meta: Mapped[Any] = mapped_column(JSON)
    status_history: Mapped[Any] = mapped_column(JSON)
    created_at: Mapped[int] = mapped_column(BigInteger)


class Stored:
    """What Open WebUI knows when a process of it begins: its chats, and who works at what."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.running: dict[str, list[str]] = {}  # chat -> tasks
        self.app = types.SimpleNamespace(state=types.SimpleNamespace(redis=None))

    def answer(
        self,
        chat: str,
        statuses: Any = (WAITS,),
        *,
        meta: Any = None,
        age_s: int = 60,
        role: str = "assistant",
    ) -> None:
        """An answer in this chat was begun so long ago."""
        number = len(self._session.scalars(select(ChatMessage)).all())
        row = ChatMessage(id=f"{chat}-{number}", chat_id=chat, user_id="ann", role=role)
        row.meta, row.created_at = meta, int(time.time()) - age_s
        row.status_history = list(statuses) if isinstance(statuses, tuple) else statuses
        self._session.add(row)
        self._session.commit()

    def told(self) -> list[str]:
        """In which chats it was said, once for each time."""
        rows = self._session.scalars(select(ChatMessage)).all()
        histories = [(row.chat_id, row.status_history) for row in rows]
        return [chat for chat, said in histories if isinstance(said, list) and SAID in said]

    def modules(self) -> dict[str, Json]:
        """Of Open WebUI, by their names, as far as this asks them."""
        return {
            "": {},
            ".env": {"UVICORN_WORKERS": 1, "WEBSOCKET_MANAGER": ""},
            ".internal": {},
            ".internal.db": {"get_async_db_context": self._database},
            ".main": {"app": self.app},
            ".models": {},
            ".models.chat_messages": {"ChatMessage": ChatMessage},
            ".socket": {},
            ".socket.main": {"get_event_emitter": self._emitter},
            ".tasks": {"list_task_ids_by_item_id": self._tasks},
        }

    @asynccontextmanager
    async def _database(self) -> AsyncIterator["Stored"]:
        yield self

    async def execute(self, statement: Executable) -> Result[Any]:
        """As SQLAlchemy's AsyncSession."""
        return self._session.execute(statement)

    async def _tasks(self, redis: object, chat_id: str) -> list[str]:
        assert redis is self.app.state.redis
        return self.running.get(chat_id, [])

    async def _emitter(self, metadata: Json, update_db: bool = True) -> Any:
        async def emit(event: Json) -> None:
            assert (event["type"], metadata["user_id"], update_db) == ("status", "ann", True)
            key = f"{metadata['chat_id']}-{metadata['message_id']}"
            row = self._session.get_one(ChatMessage, key)
            row.status_history = [*row.status_history, event["data"]]
            self._session.commit()

        return emit


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stored]:
    """The chats of an Open WebUI that begins anew."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        stored = Stored(session)
        for name, content in stored.modules().items():
            module = types.ModuleType(f"open_webui{name}")
            module.__dict__.update(content)
            monkeypatch.setitem(sys.modules, module.__name__, module)
        yield stored
    engine.dispose()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the process paused, one after the other; no time passes."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", pause)
    return pauses


async def test_the_status_of_who_waits_says_what_becomes_of_it(webui: WebUI, pages: Pages) -> None:
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    pages.open("bob")
    bob = webui.chat("bob")
    await bob.sees("You are 1st in line")
    assert bob.last["cut_short"] == CUT_SHORT
    await webui.session_ends(ann, "ann")
    await bob.is_answered()
    assert "cut_short" not in bob.last


async def test_the_next_process_says_so(
    plugin: types.ModuleType, monkeypatch: pytest.MonkeyPatch, stored: Stored
) -> None:
    monkeypatch.setattr(plugin, "TIDY_AFTER_S", (0.0,))
    stored.answer("left")
    gate = plugin.Filter()
    await until(lambda: stored.told() == ["left"])
    assert gate is not None


@pytest.mark.parametrize(
    ("statuses", "why"),
    [
        ((), "it never waited"),
        ((WAITS, {"description": "", "done": True}), "it was answered"),
        (({"description": "Searching", "done": False},), "another filter's words"),
    ],
)
async def test_only_an_open_status_of_ours_is_closed(
    plugin: types.ModuleType, pauses: list[float], stored: Stored, statuses: Any, why: str
) -> None:
    stored.answer("chat", statuses)
    await plugin.tidy_up()
    assert not stored.told(), why


@pytest.mark.parametrize(
    ("meta", "running", "told"),
    [
        ({"task_id": "one"}, ["one"], False),
        ({"task_id": "one"}, ["two"], True),  # the same chat asks again
        ({"task_id": "one"}, [], True),
        (None, ["two"], False),  # an older version's: it may be this answer's
        (None, [], True),
        (["not", "one", "of", "ours"], ["two"], False),
    ],
)
async def test_who_still_waits_is_told_nothing(
    plugin: types.ModuleType,
    pauses: list[float],
    stored: Stored,
    meta: Any,
    running: list[str],
    told: bool,
) -> None:
    stored.answer("chat", meta=meta)
    stored.running["chat"] = running
    await plugin.tidy_up()
    assert stored.told() == ["chat"] * told


async def test_with_redis_it_looks_again_when_a_dead_task_is_forgotten(
    plugin: types.ModuleType, monkeypatch: pytest.MonkeyPatch, pauses: list[float], stored: Stored
) -> None:
    async def tasks(redis: object, chat_id: str) -> list[str]:
        return ["dead"] if sum(pauses) < REDIS_TASK_TTL_S else []

    stored.app.state.redis = object()
    env = sys.modules["open_webui.env"]
    monkeypatch.setattr(env, "UVICORN_WORKERS", 4)  # Redis knows what the others work at
    monkeypatch.setattr(sys.modules["open_webui.tasks"], "list_task_ids_by_item_id", tasks)
    stored.answer("left", meta={"task_id": "dead"})
    await plugin.tidy_up()
    assert stored.told() == ["left"]


@pytest.mark.parametrize("env", [{"UVICORN_WORKERS": 2}, {"WEBSOCKET_MANAGER": "redis"}])
async def test_a_process_that_does_not_know_what_others_work_at_says_nothing(
    plugin: types.ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    pauses: list[float],
    stored: Stored,
    env: Json,
) -> None:
    for name, value in env.items():
        monkeypatch.setattr(sys.modules["open_webui.env"], name, value)
    stored.answer("of another process", meta={"task_id": "one"})
    await plugin.tidy_up()
    assert not stored.told()


@pytest.mark.parametrize("statuses", [["words"], [None], {"done": False}, "words", 3])
async def test_a_strange_row_does_not_hide_the_others(
    plugin: types.ModuleType, pauses: list[float], stored: Stored, statuses: Any
) -> None:
    stored.answer("strange", statuses, age_s=1)
    stored.answer("left")
    await plugin.tidy_up()
    assert stored.told() == ["left"]


async def test_neither_questions_nor_answers_of_the_future_are_among_the_newest(
    plugin: types.ModuleType, monkeypatch: pytest.MonkeyPatch, pauses: list[float], stored: Stored
) -> None:
    monkeypatch.setattr(plugin, "NEWEST", 1)
    stored.answer("imported, in ms", (), age_s=-1000 * 50 * YEAR_S)
    stored.answer("of a wrong clock", (), age_s=-YEAR_S)
    stored.answer("a question", (), age_s=-7200, role="user")
    stored.answer("older", age_s=3600)
    stored.answer("left", age_s=-3600)  # its browser's clock is a little fast
    await plugin.tidy_up()
    assert stored.told() == ["left"]


def test_without_an_event_loop_the_file_can_be_looked_at(plugin: types.ModuleType) -> None:
    assert plugin.Filter().valves

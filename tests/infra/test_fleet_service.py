"""How the commands for machines call a service that is slow, gone or somebody else."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from infra.errors import CommandError
from infra.fleet import service
from infra.fleet.service import News, Refused, Service

EVENT = 'id: {0}\nevent: fleet\ndata: {{"instance_id": "{0} é"}}\n\n'


class Handler(BaseHTTPRequestHandler):
    """Says what ``replies`` hold, one after another: (status, body), or None to hang up."""

    replies: ClassVar[list[tuple[int, str] | None]] = []
    heard: ClassVar[list[tuple[str, dict[str, str]]]] = []

    def do_GET(self) -> None:
        self.heard.append((self.path, dict(self.headers)))
        reply = self.replies.pop(0) if self.replies else None
        if reply is None:
            self.close_connection = True
            return
        self.send_response(reply[0])
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Location", "/elsewhere")  # heeded with 302 alone
        self.end_headers()
        self.wfile.write(reply[1].encode())

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(service, "AGAIN_S", 0.01)
    Handler.replies, Handler.heard = [], []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield Service(f"http://127.0.0.1:{server.server_port}", "key")
        server.shutdown()
        thread.join()


def test_a_call_whose_answer_is_lost_is_the_same_call_again(there: Service) -> None:
    Handler.replies = [None, None, (202, '{"command_id": "c"}')]
    assert there.post("/admin/instances", {"provider": "x"}) == {"command_id": "c"}
    keys = {headers["Idempotency-Key"] for _, headers in Handler.heard}
    assert (len(Handler.heard), len(keys)) == (3, 1)
    with pytest.raises(CommandError, match="nobody answers at"):
        there.get("/admin/instances")


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, '{"detail": "no such thing", "code": "x"}', "^no such thing$"),
        (403, '{"detail": "not that one"}', "the admin key is not accepted: not that one"),
        (502, "<html>", "is no Vestibule that knows this call: 502 Bad Gateway"),
        (200, "[]", "is no Vestibule that knows this call: 200 OK"),
        (302, "", "302 Found"),
    ],
)
def test_what_it_says_no_with_is_shown(there: Service, status: int, body: str, words: str) -> None:
    Handler.replies = [(status, body)]
    with pytest.raises(Refused, match=words) as raised:
        there.get("/admin/instances")
    assert raised.value.status == status
    assert len(Handler.heard) == 1


def test_a_name_is_one_part_of_the_path_and_no_other_page_is_a_machine(there: Service) -> None:
    Handler.replies = [(404, '{"detail": "no such thing"}'), (200, '{"providers": []}')]
    with pytest.raises(Refused, match="no such thing"):
        there.instance("../keys?x=1")
    assert Handler.heard[0][0] == "/admin/instances/..%2Fkeys%3Fx%3D1"
    with pytest.raises(Refused, match="there is no instance 'offers'"):
        there.instance("offers")


def test_a_stream_that_is_cut_goes_on_where_it_was(there: Service) -> None:
    gap = "id: 4-0\nevent: gap\ndata: {}\n\n"
    ping = ": ping\n\nid: 0-1\n\n"
    Handler.replies = [
        (200, ping + EVENT.format("1-0")),
        None,
        (200, gap + EVENT.format("5-0")),
    ]
    told = there.follow(5)
    events: list[str] = []
    looks = 0
    while len(events) < 2:
        news = next(told)
        assert news is not None
        looks += news.event is None
        if news.event:
            events.append(news.event["instance_id"])
    assert events == ["1-0 é", "5-0 é"]
    assert looks == 6  # before and after each stream begins (the second did not), and at the gap
    last = [headers.get("Last-Event-ID") for _, headers in Handler.heard]
    assert last[:3] == [None, "1-0", "1-0"]


def test_none_comes_when_nothing_does(there: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "AGAIN_S", 60)
    told = there.follow(0.05)
    assert [next(told), next(told)] == [News(None), None]

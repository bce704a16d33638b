"""How the commands for machines call a service that is slow, gone or somebody else, and what they
ask before they end something."""

import argparse
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from infra.errors import CommandError
from infra.fleet import drain, service, terminate
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


# --- what is asked before something is ended -----------------------------------------------------


def _instance(name: str, state: str = "ready", **facts: Any) -> dict[str, Any]:
    disk = {"provider_volume_id": "v", "delete_on_terminate": True}
    known = {"instance_id": name, "state": state, "pool": "default", "volumes": [disk]}
    place = {"provider": "aws", "type": "g5", "zone": "a", "market": "on-demand"}
    return {**known, **place, **facts}


class Fleet(Service):
    """Two instances with a worker each; keeps what is asked of it."""

    def __init__(self) -> None:
        super().__init__("http://there", "key")
        self.asked: list[tuple[str, str, Any]] = []
        self.instances = {name: _instance(name) for name in ("a", "b")}

    def get(self, path: str, **query: str | int) -> dict[str, Any]:
        if path == "/admin/workers":
            names = (*self.instances, "by-hand")
            return {"workers": [_worker(name) for name in names]}
        name = path.rpartition("/")[2]
        if name not in self.instances:
            raise Refused(404, "instance_unknown", f"no {name}")
        return self.instances[name]

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if "by-hand" in path and "instances" in path:
            raise Refused(404, "instance_unknown", "no by-hand")
        self.asked.append(("POST", path, body))
        return {}

    def delete(self, path: str, **query: str | int) -> dict[str, Any]:
        self.asked.append(("DELETE", path, query))
        return {}


def _worker(name: str) -> dict[str, Any]:
    pool = "other" if name == "by-hand" else "default"
    return {"worker_id": name, "in_flight": 3, "ready": True, "pool": pool}


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    ours = Fleet()
    monkeypatch.setattr(service, "of", lambda _: ours)
    return ours


def _run(module: Any, *words: str) -> int:
    parser = argparse.ArgumentParser()
    module.configure(parser)
    args = parser.parse_args(words)
    code: int = args.run(args)
    return code


def test_the_question_says_what_would_be_lost(fleet: Fleet) -> None:
    both = list(fleet.instances.values())
    asked = terminate._question(fleet, both, force=True)
    assert asked == (
        "End a (aws g5 a), b (aws g5 a); requests that run there now: 6, which are cut off;"
        " disks that are deleted: 2; no ready worker is left for default"
    )
    kept = [_instance("a", volumes=[{"delete_on_terminate": False}])]
    assert terminate._question(fleet, kept, force=False) == (
        "End a (aws g5 a); requests that run there now: 3"
    )


def test_nothing_is_ended_before_all_are_known_and_somebody_agreed(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Refused):
        _run(terminate, "a", "nope", "--yes")
    with pytest.raises(CommandError, match="--yes"):
        _run(terminate, "a")
    assert not fleet.asked
    fleet.instances["b"]["state"] = "terminated"
    assert _run(terminate, "a", "b", "a", "--yes", "--reason", "r") == 0
    assert fleet.asked == [("DELETE", "/admin/instances/a", {"reason": "r"})]
    assert capsys.readouterr().out.splitlines() == [
        "a drains, then it ends",
        "b is terminated already",
    ]
    assert _run(terminate, "a", "--yes", "--force", "--json") == 0
    assert fleet.asked[-1][2] == {"reason": "", "force": "true"}
    assert json.loads(capsys.readouterr().out) == {"commands": [{}]}


def test_a_worker_that_no_provider_made_is_drained_too(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(drain, "a", "--deadline", "0") == 0
    assert _run(drain, "by-hand") == 0
    assert [path for _, path, _ in fleet.asked] == [
        "/admin/instances/a/drain",
        "/admin/workers/by-hand/drain?pool=other",
    ]
    assert fleet.asked[0][2]["drain"] == 0
    assert "nobody ends it" in capsys.readouterr().out

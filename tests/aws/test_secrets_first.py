"""What Lambda starts before Python: with the secrets in its environment it becomes the runtime."""

import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from infra.aws import package

PROGRAM = package.ROOT / package.PROGRAMS["secrets_first"]
RUNTIME = "import json, os, sys; print(json.dumps([dict(os.environ), sys.argv[1:]]))"
VERSION = "terraform-20261121221117212800000009"  # as its provider calls them; AWS wants 32 to 64
SECRETS = {"arn:redis": "rediss://:p@r:6379/0", "arn:key": "vst-1"}


class SecretsManager(BaseHTTPRequestHandler):
    """Answers GetSecretValue, and writes down what it was asked."""

    asked: list[dict[str, str]]

    def do_POST(self) -> None:  # noqa: N802 - the library's name
        which = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(which)
        text = SECRETS.get(which["SecretId"])
        answer = {"SecretString": text} if text else {"__type": "ResourceNotFoundException"}
        self.send_response(200 if text else 400)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def manager() -> Iterator[tuple[str, list[dict[str, str]]]]:
    asked: list[dict[str, str]] = []
    handler = type("Asked", (SecretsManager,), {"asked": asked})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def started(url: str, secrets: dict[str, dict[str, str]]) -> subprocess.CompletedProcess[str]:
    """As Lambda does it: the program, and the runtime's command as its words."""
    return subprocess.run(
        [sys.executable, str(PROGRAM), sys.executable, "-c", RUNTIME, "bootstrap"],
        env={
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "MAX_ACTIVE_USERS": "5",
            "SECRETS": json.dumps(secrets),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_runtime_starts_with_the_secrets_it_was_promised(
    manager: tuple[str, list[dict[str, str]]],
) -> None:
    url, asked = manager
    wanted = {
        "REDIS_URL": {"SecretId": "arn:redis"},
        "VESTIBULE_SERVICE_KEY": {"SecretId": "arn:key", "VersionId": VERSION},
    }
    ended = started(url, wanted)
    assert ended.returncode == 0, ended.stderr
    environment, words = json.loads(ended.stdout)
    assert words == ["bootstrap"]
    assert asked == list(wanted.values()), "that version and no other"
    named = {name: environment[name] for name in (*wanted, "MAX_ACTIVE_USERS")}
    assert named == {
        "REDIS_URL": SECRETS["arn:redis"],
        "VESTIBULE_SERVICE_KEY": SECRETS["arn:key"],
        "MAX_ACTIVE_USERS": "5",
    }
    assert "SECRETS" not in environment


def test_without_its_secrets_nothing_starts_and_the_log_says_why(
    manager: tuple[str, list[dict[str, str]]],
) -> None:
    ended = started(manager[0], {"REDIS_URL": {"SecretId": "arn:nobody"}})
    assert ended.returncode != 0
    assert ended.stdout == ""
    assert "ResourceNotFoundException" in ended.stderr


def test_it_may_be_started() -> None:
    first = Path(PROGRAM).read_text().splitlines()[0]
    assert first == "#!/var/lang/bin/python3", "where Lambda's Python is"
    assert PROGRAM.stat().st_mode & 0o111

"""``vestibule aws deploy | status | destroy`` over a Terraform that writes down what it is told."""

import json
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from infra import cli
from infra.aws.deployment import SOURCE
from tests.aws.desk import NEW, VARS, Desk
from tests.infra.conftest import eventually


@pytest.mark.parametrize("words", [(), ("--yes",)])
def test_the_plan_is_shown_and_exactly_that_is_applied(
    desk: Desk, capfd: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    desk.type(None if words else "yes\n")
    assert desk.deploy(*words) == 0
    assert desk.verbs == ["init", "plan", "apply"]
    shown = capfd.readouterr().out
    number = shown.split("this is what would change: ")[1].split()[0]
    assert f"applied: {number}" in shown
    assert desk.told[2].split()[-1] == "plan", "a plan, by its file"
    assert not any("auto-approve" in line or "var" in line for line in desk.told[2:])
    assert ("Make these changes" in shown) == (not words)


@pytest.mark.parametrize("answer", ["no\n", "y\n", "Yes\n", "\n", ""])
def test_another_answer_than_yes_changes_nothing(desk: Desk, answer: str) -> None:
    desk.type(answer)
    assert desk.deploy() == 1
    assert desk.verbs == ["init", "plan"]
    assert not (desk.folder / "plan").exists(), "what nobody wanted cannot be applied later"


def test_where_nobody_can_be_asked_nothing_begins(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert desk.deploy() == 1
    assert "--yes" in capsys.readouterr().err
    assert desk("destroy") == 1
    assert "--confirm NAME" in capsys.readouterr().err
    assert desk.told == []


def test_what_is_as_it_should_be_is_left_alone(desk: Desk) -> None:
    desk.set(CHANGES="0")
    assert desk.deploy("--yes") == 0
    assert desk.verbs == ["init", "plan"]


def test_nothing_secret_is_said_and_nobody_else_reads_the_folder(desk: Desk) -> None:
    """The plan holds Redis' password, so it is gone when it was used."""
    desk.set(TF_CLI_ARGS_apply="-auto-approve", AWS_SECRET_ACCESS_KEY="very-secret")
    assert desk.deploy("--yes") == 0
    assert stat.S_IMODE(desk.folder.stat().st_mode) == 0o700
    assert not (desk.folder / "plan").exists()
    assert desk.verbs == ["init", "plan", "apply"], "and no TF_CLI_ARGS"
    words = {word for line in desk.told for word in line.split()}
    assert {word for word in words if "var" in word} == {
        "-var-file=yours.tfvars",
        "-var-file=ours.tfvars.json",
    }
    assert not [word for word in words if "secret" in word]
    kept = json.loads((desk.folder / "ours.tfvars.json").read_text())
    assert kept == {
        "name": "queue",
        "region": "eu-central-1",
        "package": "functions.zip",
        "package_hash": "AAA=",
        "runtime": "python3.13",
        "architecture": "x86_64",
    }


def test_the_files_are_this_versions(desk: Desk) -> None:
    assert desk.deploy("--yes") == 0
    (desk.folder / "left.tf").write_text("of another version")
    (desk.folder / ".terraform.lock.hcl").write_text("the provider's version")
    assert desk("deploy", "--yes") == 0, "what was said the first time is remembered"
    names = {path.name for path in SOURCE.iterdir()}
    assert names <= {path.name for path in desk.folder.iterdir()}
    assert not (desk.folder / "left.tf").exists()
    assert (desk.folder / ".terraform.lock.hcl").exists()
    assert (desk.folder / "yours.tfvars").read_text() == VARS


def test_the_state_is_locked_in_a_bucket_or_here_when_told_so(desk: Desk) -> None:
    assert desk.deploy("--yes") == 0
    kept = desk.folder / "backend.tf.json"
    assert json.loads(kept.read_text()) == {"terraform": {"backend": {"local": {}}}}
    where = ("--region", "eu-central-1", "--state-bucket", "states", "--vars", str(desk.vars))
    assert desk("deploy", "--yes", *where) == 0
    assert json.loads(kept.read_text())["terraform"]["backend"]["s3"] == {
        "bucket": "states",
        "key": "vestibule/queue.tfstate",
        "region": "eu-central-1",
        "encrypt": True,
        "use_lockfile": True,
    }


def test_a_wrong_place_of_the_state_is_not_remembered(desk: Desk) -> None:
    assert desk.deploy("--yes") == 0
    desk.set(FAILS="init", SAYS="Error: Backend configuration changed")
    assert desk("deploy", "--yes", "--state-bucket", "anothers") == 1
    desk.set(SAYS="")
    assert desk("deploy", "--yes") == 0
    kept = json.loads((desk.folder / "backend.tf.json").read_text())
    assert kept == {"terraform": {"backend": {"local": {}}}}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--local-state", "--vars", "VARS"), "--region"),
        (("--region", "eu-central-1", "--local-state"), "--vars"),
        (("--region", "eu-central-1", "--local-state", "--vars", "/no"), "there is no file /no"),
        (("--region", "eu-central-1", "--vars", "VARS"), "--state-bucket"),
        ((*NEW, "--vars", "VARS", "--terraform", "/no/terraform"), "there is no /no/terraform"),
    ],
)
def test_what_was_never_said_is_asked_for_by_name(
    desk: Desk, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    told = [word.replace("VARS", str(desk.vars)) for word in words]
    assert desk("deploy", "--yes", *told) == 1
    assert said in capsys.readouterr().err
    assert not desk.folder.exists()


@pytest.mark.parametrize(
    "words",
    [
        ["Queue"],
        ["q"],
        ["queue-"],
        ["a" * 25],
        ["../queue"],
        ["queue", "--region", "europe"],
        ["queue", "--region", "eu-central-1;x"],
        ["queue", "--local-state", "--state-bucket", "b"],
    ],
)
def test_a_bad_name_or_region_is_exit_code_2(desk: Desk, words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["aws", "deploy", *words])
    assert stop.value.code == 2
    assert desk.told == []


def test_a_deployment_stays_where_it_is(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert desk.deploy("--yes") == 0
    assert desk("deploy", "--yes", "--region", "us-east-1") == 1
    assert "queue is in eu-central-1" in capsys.readouterr().err
    assert cli.main(["aws", "deploy", "other", "--yes", *NEW, "--folder", str(desk.folder)]) == 1
    assert "is the deployment queue's" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"VERSION": "1.10.5"}, "is version 1.10.5: install Terraform 1.11 or newer"),
        ({"FAILS": "init", "SAYS": "Error: No valid credential sources found"}, "AWS_PROFILE"),
        ({"FAILS": "plan", "SAYS": "api error ExpiredToken: x"}, "sign in again"),
        ({"FAILS": "apply", "SAYS": "Error acquiring the state lock"}, "somebody else"),
    ],
)
def test_what_went_wrong_is_said_with_what_to_do(
    desk: Desk, capfd: pytest.CaptureFixture[str], variables: dict[str, str], said: str
) -> None:
    desk.set(**variables)
    assert desk.deploy("--yes") == 1
    told = capfd.readouterr().err
    assert said in told
    assert variables.get("SAYS", "") in told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_terraform_once_and_is_waited_for(
    desk: Desk, number: signal.Signals
) -> None:
    go_on, groups = desk.path / "go on", list[int]()
    desk.set(SLOW=str(go_on))

    def interrupt() -> None:
        eventually(lambda: "began" in desk.verbs, "nothing is applied")
        groups.append(os.getpgid(int(desk.told[-1].split()[1])))
        for _ in range(3):
            os.kill(os.getpid(), number)
            eventually(lambda: "interrupted" in desk.told, "it was not told")
        go_on.touch()

    person = Thread(target=interrupt)
    person.start()
    assert desk.deploy("--yes") == 128 + number
    person.join()
    assert desk.verbs[-3:] == ["began", "interrupted", "ended"]
    assert groups[0] != os.getpgid(0), "a Ctrl-C of the terminal would reach it as well"
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)


def test_destroy_shows_what_goes_and_wants_the_name(
    desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    assert desk.deploy("--yes") == 0
    desk.log.unlink()
    desk.type("yes\n")
    assert desk("destroy") == 1
    assert desk.verbs == ["init", "plan"]
    assert "-destroy" in desk.told[1].split()
    capfd.readouterr()
    desk.type("queue\n")
    assert desk("destroy") == 0
    shown = capfd.readouterr().out
    assert f"applied: {shown.split('would change: ')[1].split()[0]}" in shown
    assert desk("destroy", "--confirm", "other") == 1
    assert desk("destroy", "--confirm", "queue") == 0


# --- status --------------------------------------------------------------------------------------


class Readyz(BaseHTTPRequestHandler):
    """A deployment that answers; `status` is its."""

    status = 200

    def do_GET(self) -> None:  # noqa: N802 - the library's name
        body = b'{"status": "ready"}' if self.path == "/readyz" else b""
        self.send_response(self.status if body else 404)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def answering(status: int) -> Iterator[str]:
    """The address of a deployment."""
    handler = type("Answering", (Readyz,), {"status": status})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("changes", "answers", "code"), [("0", 200, 0), ("2", 200, 1), ("0", 503, 1)]
)
def test_status_shows_outputs_drift_and_whether_it_answers(
    desk: Desk, capfd: pytest.CaptureFixture[str], changes: str, answers: int, code: int
) -> None:
    assert desk.deploy("--yes") == 0
    desk.log.unlink()
    capfd.readouterr()
    with answering(answers) as url:
        told = {"url": url, "functions_url": url, "package_hash": "BBB=", "runtime": "python3.12"}
        told |= {"architecture": "arm64"}
        desk.set(OUTPUTS=outputs(desk, told), CHANGES=changes)
        assert desk("status") == code
    assert desk.verbs == ["init", "output", "plan"]
    assert "-lock=false" in desk.told[2].split()
    assert not any(word.startswith("-out") for word in desk.told[2].split())
    kept = json.loads((desk.folder / "ours.tfvars.json").read_text())
    assert kept["package_hash"] == "BBB=", "the package that is deployed, not one of this checkout"
    shown = capfd.readouterr().out
    assert ("drift: none" in shown) == (changes == "0")
    assert shown.count('{"status": "ready"}') == 2


def test_status_of_what_is_not_there(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    desk.set(OUTPUTS=outputs(desk, {}))
    assert desk("status", *NEW, "--vars", str(desk.vars)) == 1
    assert "queue is not deployed in eu-central-1" in capfd.readouterr().out


def outputs(desk: Desk, values: dict[str, str]) -> str:
    """As `terraform output -json` prints them."""
    path = desk.path / "outputs"
    path.write_text(json.dumps({name: {"value": value} for name, value in values.items()}))
    return str(path)

"""The fleet's way into a deployment: its file to the scheduler, and what the scheduler may do."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name

from infra import fleet_file
from infra.aws.deployment import SOURCE
from infra.providers import aws
from infra.providers.aws.archive import SHA256_MARK, URL_MARK
from infra.providers.aws.request import DEPLOYMENT_TAG
from tests.aws import hcl
from tests.aws.desk import Desk
from worker_image import agent

FLEET = """
[deployment]
name = "queue"
[providers.aws]
kind = "aws"
region = "eu-central-1"
subnets = { eu-central-1a = "subnet-0a" }
types = { "g6.xlarge" = 8 }
launch_template = "lt-0a"
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    path = tmp_path / "ours.toml"
    path.write_text(FLEET)
    return path


def kept(desk: Desk) -> dict[str, Any]:
    """The variables that Terraform was given."""
    found: dict[str, Any] = json.loads((desk.folder / "ours.tfvars.json").read_text())
    return found


# --- the command --------------------------------------------------------------------------------


def test_the_file_is_kept_and_given_again_until_it_is_forgotten(desk: Desk, fleet: Path) -> None:
    assert desk.deploy("--yes", "--fleet", str(fleet)) == 0
    assert (desk.folder / kept(desk)["fleet_file"]).read_text() == FLEET
    fleet.unlink()
    assert desk("deploy", "--yes") == 0
    assert (desk.folder / kept(desk)["fleet_file"]).read_text() == FLEET
    assert desk("deploy", "--yes", "--no-fleet") == 0
    assert "fleet_file" not in kept(desk)
    assert desk("deploy", "--yes") == 0
    assert "fleet_file" not in kept(desk)


@pytest.mark.parametrize(
    ("was", "becomes", "why"),
    [
        ('"g6.xlarge" = 8', '"g6.xlarge" = 0', "providers.aws.types: must be from 1"),
        ('name = "queue"', 'name = "lab"', "deployment.name: must be queue"),
        ('"lt-0a"', '"lt-0a"\nprofile = "me"', "providers.aws.profile: is a file"),
        ('"lt-0a"', '"lt-0a"\nuser_data = "a.sh"', "providers.aws.user_data: is a file"),
        (
            '"lt-0a"',
            '"lt-0a"\n[providers.x]\nkind = "local"\nmodel = "m"',
            "providers.x.kind: a co",
        ),
    ],
)
def test_a_file_that_would_not_run_there_begins_nothing(
    desk: Desk, fleet: Path, capsys: pytest.CaptureFixture[str], was: str, becomes: str, why: str
) -> None:
    assert was in FLEET
    fleet.write_text(FLEET.replace(was, becomes))
    assert desk.deploy("--yes", "--fleet", str(fleet)) != 0
    assert f"{fleet}: {why}" in capsys.readouterr().err
    assert desk.told == []
    assert not (desk.folder / "fleet.toml").exists()


def test_a_file_that_cannot_be_checked_begins_nothing(
    desk: Desk,
    fleet: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("infra.fleet_file")
    monkeypatch.setitem(sys.modules, "infra.fleet_file", None)
    assert desk.deploy("--yes", "--fleet", str(fleet)) == 1
    assert "--fleet: is checked with the library infra.fleet_file" in capsys.readouterr().err
    assert desk.told == []


# --- the container ------------------------------------------------------------------------------


def test_the_scheduler_starts_with_the_file_as_it_was_written(tmp_path: Path) -> None:
    """The words of the container, in a shell, with whatever a file may hold."""
    entry = re.findall(r"^  scheduler_entry = .*?\? (\[.*?\]) :", _file("service.tf"), re.M)
    path = tmp_path / "fleet.toml"
    words = json.loads(entry[0].replace("${local.fleet_path}", str(path)))
    program = tmp_path / "vestibule"
    program.write_text('#!/bin/sh\necho "$# $*"\n')
    program.chmod(0o755)
    text = 'a = "$(id) `id` %s %d \\n \'"\n\n# the end, without a new line'
    ended = subprocess.run(
        [*words, "scheduler"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "FLEET": text},
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    assert ended.stdout == "1 scheduler\n"
    assert path.read_text() == text


METADATA = {
    "local-ipv4": "10.0.0.7",
    "instance-id": "i-0a",
    "tags/instance/vestibule-instance": "aws-1",
    "tags/instance/vestibule-pool": "default",
}
STUB = """#!/bin/bash
case ${0##*/} in
  curl) for url; do :; done; [ -e "$STUBS/said/${url##*/}" ] && cat "$STUBS/said/${url##*/}" ;;
  aws) echo token ;;
  docker) printf '%s\n' "$@" > "$STUBS/words"; cp "$STUBS/run/vestibule-worker.env" "$STUBS/kept" ;;
esac
"""


def _rendered(**variables: str) -> str:
    """The user data as Terraform's templatefile makes it; what is not said is empty."""
    script = re.sub(
        r'%\{ if (\w+) != "" ~\}\n(.*?)%\{ endif ~\}\n',
        lambda found: found[2] if variables.get(found[1]) else "",
        _file("worker.sh.tftpl"),
        flags=re.DOTALL,
    )
    script = re.sub(r"(?<!\$)\$\{(\w+)\}", lambda found: variables.get(found[1], ""), script)
    return script.replace("$${", "${")


def _booted(folder: Path, script: str, **tags: str) -> tuple[dict[str, str], list[str]]:
    """The agent's settings and Docker's words, when a machine with these tags runs it."""
    for name in ("bin", "said/tags/instance", "run"):
        (folder / name).mkdir(parents=True)
    for name in ("curl", "aws", "docker", "systemctl", "install"):
        (folder / "bin" / name).write_text(STUB)
        (folder / "bin" / name).chmod(0o755)
    told = METADATA | {f"tags/instance/{name}": text for name, text in tags.items()}
    for name, text in {**told, "token": "session"}.items():
        (folder / "said" / name.rpartition("/")[2]).write_text(text)
    path = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "STUBS": str(folder)}
    script = script.replace("/run/", f"{folder}/run/")
    subprocess.run(["bash"], input=script, env=path, text=True, check=True, timeout=10)
    lines = (folder / "kept").read_text().splitlines()
    assert not list((folder / "run").iterdir())
    return dict(line.split("=", 1) for line in lines), (folder / "words").read_text().split("\n")


def test_a_worker_starts_with_the_model_of_its_tags_or_the_templates(tmp_path: Path) -> None:
    script = _rendered(model="org/ours", vllm_arguments="--a '{\"b\": 1}'", image="worker:1")
    settings, words = _booted(tmp_path / "a", script)
    assert settings["VESTIBULE_MODEL"] == "org/ours"
    assert settings["VESTIBULE_WORKER_ID"] == "aws-1"
    given = {"VESTIBULE_WORKER_TOKEN": "t", **settings, "VESTIBULE_SLOTS": "8"}
    given |= {"VESTIBULE_ADMISSION_URL": "", "VESTIBULE_WORKER_URL": ""}
    given |= {"VESTIBULE_WORKER_DRAIN_TIMEOUT": ""}
    read = agent.read_settings([], given)
    assert read.vllm_arguments == ("--a", '{"b": 1}')
    assert words[-2] == "worker:1", "and nothing after it"
    settings, _ = _booted(tmp_path / "b", script, **{"vestibule-model": "org/theirs"})
    assert settings["VESTIBULE_MODEL"] == "org/theirs"


def test_a_worker_takes_its_url_and_shows_it_in_no_command_line(tmp_path: Path) -> None:
    url = "https://models.s3.eu-central-1.amazonaws.com/m.tar?X-Amz-Date=1&X-Amz-Signature=ab"
    script = _rendered(model="org/ours", model_archive="s3://models/m.tar")
    filled = script.replace(URL_MARK.decode(), url).replace(SHA256_MARK.decode(), "f" * 64)
    settings, words = _booted(tmp_path / "a", filled)
    assert settings["VESTIBULE_MODEL"] == url
    assert settings["VESTIBULE_MODEL_SHA256"] == "f" * 64
    assert not [word for word in words if "Signature" in word]
    # An order with a model of its own.
    empty = script.replace(URL_MARK.decode(), "").replace(SHA256_MARK.decode(), "")
    settings, _ = _booted(tmp_path / "b", empty, **{"vestibule-model": "org/theirs"})
    assert settings["VESTIBULE_MODEL"] == "org/theirs"
    assert settings["VESTIBULE_MODEL_SHA256"] == ""


# --- what it may do -----------------------------------------------------------------------------


def _file(name: str) -> str:
    return (SOURCE / name).read_text()


def _statements() -> dict[str, dict[str, Any]]:
    document = hcl.blocks()["data.aws_iam_policy_document.fleet"]
    found = list(document["statement"])
    for each in document["dynamic"]:
        found += each["statement"]["content"]
    return {each["sid"]: each for each in found}


def _conditions(statement: dict[str, Any]) -> set[tuple[str, str]]:
    return {(each["variable"], str(each["values"])) for each in statement.get("condition", [])}


def test_all_that_the_provider_asks_of_ec2_is_allowed() -> None:
    folder = Path(aws.__file__).parent
    code = "\n".join(path.read_text() for path in folder.glob("*.py"))
    asked = set(re.findall(r'"((?:run|describe|terminate|delete)_[a-z_]+)"', code))
    allowed = {
        xform_name(action)
        for action in re.findall(r'"ec2:(\w+)"', _file("fleet.tf"))
        if not action.startswith(("LaunchTemplate", "InstanceType", "CreateAction"))
    }
    # A template has no fabric adapter (settings.py), so its types are not asked for.
    assert asked - {"describe_instance_types"} == allowed - {"create_tags"}


def test_what_makes_or_ends_something_is_bound_to_this_deployment() -> None:
    ours = f"aws:%sTag/{DEPLOYMENT_TAG}", "['${var.name}']"
    template = "ec2:LaunchTemplate", "['${aws_launch_template.worker.arn}']"
    kinds = "ec2:InstanceType", "${var.worker_instance_types}"
    requested, resource = (ours[0] % "Request", ours[1]), (ours[0] % "Resource", ours[1])
    expected = {
        "Machine": {template, requested, kinds},
        "Disk": {template, requested},
        "Spot": {requested},
        "Place": {template},
        "Name": {("ec2:CreateAction", "['RunInstances']")},
        "End": {resource},
        "See": set(),
        "WorkersRole": {("iam:PassedToService", "['ec2.amazonaws.com']")},
        "SpotsRole": {("iam:AWSServiceName", "['spot.amazonaws.com']")},
        "ImagesName": set(),
        "Archive": set(),
    }
    there = _statements()
    assert {sid: _conditions(each) for sid, each in there.items()} == expected
    assert there["WorkersRole"]["resources"] == ["${aws_iam_role.worker.arn}"]
    assert there["Archive"]["resources"] == ["${statement.value}"]
    unbound = [sid for sid, each in there.items() if each["resources"] == ["*"]]
    assert unbound == ["See"]


def test_there_is_no_role_without_a_fleet_and_none_for_others() -> None:
    for kind in ("aws_iam_role", "aws_iam_role_policy"):
        assert hcl.blocks()[f"{kind}.fleet"]["count"] == "${local.has_fleet ? 1 : 0}"
    (task,) = hcl.of("aws_ecs_task_definition.").values()
    assert task["task_role_arn"].startswith('${each.key == "scheduler" && local.has_fleet ?')


def test_the_docs_file_is_one(tmp_path: Path) -> None:
    docs = Path(__file__).parent.parent.parent / "docs" / "aws.md"
    (example,) = re.findall(r"```toml\n(# fleet\.toml.*?)```", docs.read_text(), re.DOTALL)
    (tmp_path / "fleet.toml").write_text(example)
    file = fleet_file.read(tmp_path / "fleet.toml")
    assert file.deployed.name == "queue"
    assert set(file.pools) == {"default"}

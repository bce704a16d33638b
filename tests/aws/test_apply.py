"""The real Terraform with AWS' real provider, against moto: from nothing to nothing.

Needs `terraform`, and its provider where Terraform finds it: a folder of providers, or the network.
"""

import base64
import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from infra import cli, fleet_file
from infra.aws import package
from infra.aws.package import Package
from tests.aws import cloud
from tests.aws.test_fleet import FLEET

REGION = "eu-central-1"
MIRRORS = (  # Terraform's own places, and where an image of a machine may have put one
    *(Path.home() / ".terraform.d/plugins", Path("/usr/local/share/terraform/plugins")),
    *(Path("/usr/share/terraform/plugins"), *Path("/opt").glob("*")),
)
TICKS = {"queue-ticks": {"REDIS_URL"}}
"""Which secrets the ticks' function reads."""
# Moto forgets these, so that they would be set anew at each deploy.
FORGOTTEN = {
    *("aws_appautoscaling_target", "aws_ecs_service", "aws_launch_template"),
    *("aws_lambda_function", "aws_vpc_security_group_egress_rule"),
    *("aws_vpc_security_group_ingress_rule", "aws_iam_role_policy"),
}

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def providers(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """A configuration that names a folder of providers; None where there is none."""
    if shutil.which("terraform") is None:
        pytest.skip("terraform is missing")
    for folder in MIRRORS:
        if folder.is_dir() and list(folder.glob("*/hashicorp/aws")):
            path = tmp_path_factory.mktemp("terraform") / "rc"
            path.write_text(
                f'provider_installation {{ filesystem_mirror {{ path = "{folder}" }} }}\n'
            )
            return path
    return None


@pytest.fixture
def aws(
    providers: Path | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[dict[str, str]]:
    """A cloud with a certificate, a Redis' URL and a database's: their ARNs."""
    if providers:
        monkeypatch.setenv("TF_CLI_CONFIG_FILE", str(providers))
    for name in ("AWS_PROFILE", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with cloud.running() as url:
        for name, value in {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "2",
        }.items():
            monkeypatch.setenv(name, value)
        secrets = boto3.client("secretsmanager")
        yield {
            "certificate_arn": _certificate(tmp_path),
            **{
                f"{name}_url_secret_arn": secrets.create_secret(Name=name, SecretString=text)["ARN"]
                for name, text in {"redis": "rediss://:p@r:6379/0", "database": "x"}.items()
            },
        }


def _certificate(folder: Path) -> str:
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        + ["-subj", "/CN=chat.example.org", "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    arn: str = boto3.client("acm").import_certificate(
        Certificate=certificate.read_bytes(), PrivateKey=key.read_bytes()
    )["CertificateArn"]
    return arn


@pytest.fixture
def words(tmp_path: Path, aws: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a command is told of a deployment without ElastiCache; a package of one file."""

    def build(output: Path, *_: Any, **__: Any) -> Package:
        with zipfile.ZipFile(output, "w") as made:
            made.writestr("admission/functions.py", "")
        return Package(output, "00", "AAAA", 3, 3)

    monkeypatch.setattr(package, "build", build)
    variables: dict[str, Any] = {"domain": "chat.example.org", **aws, "is_protected": False}
    variables |= {"redis_cidrs": ["10.0.0.0/24"], "model_bucket": "our-models"}
    variables["worker_ami"] = "resolve:ssm:/aws/service/gpu/ami-id"
    made = boto3.client("secretsmanager").create_secret(Name="jwt", SecretString="x" * 32)
    variables["secret_settings"] = {"VESTIBULE_OWUI_JWT_SECRET": made["ARN"]}
    variables["worker_image"] = f"123456789012.dkr.ecr.{REGION}.amazonaws.com/worker:1"
    return _told(tmp_path, variables)


def _told(folder: Path, variables: dict[str, Any]) -> list[str]:
    path = folder / "queue.tfvars"
    path.write_text("\n".join(f"{name} = {json.dumps(at)}" for name, at in variables.items()))
    told = ["--region", REGION, "--local-state", "--vars", str(path)]
    return [*told, "--folder", str(folder / "deployment")]


def _terraform(folder: Path, *told: str) -> str:
    ended = subprocess.run(
        ["terraform", *told], cwd=folder, capture_output=True, text=True, check=True
    )
    return ended.stdout


def test_all_but_elasticache_is_made_and_gone_again(
    words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fleet = tmp_path / "ours.toml"
    fleet.write_text(FLEET)
    told = [*words, "--yes", "--fleet", str(fleet)]
    assert cli.main(["aws", "deploy", "queue", *told]) == 0
    folder = tmp_path / "deployment"
    assert "valid" in _terraform(folder, "validate")

    # Nothing is ever printed, or kept, of the keys: only Secrets Manager has them.
    shown = "".join(capfd.readouterr())
    state = (folder / "terraform.tfstate").read_text()
    secrets = boto3.client("secretsmanager")
    made = json.loads(_terraform(folder, "output", "-json"))
    for arn in made["secret_arns"]["value"].values():
        key = secrets.get_secret_value(SecretId=arn)["SecretString"]
        assert len(key) == 48
        assert key not in state
        assert key not in shown

    ec2, ours = boto3.client("ec2"), made["worker_launch_template_id"]["value"]
    found = ec2.describe_launch_template_versions(LaunchTemplateId=ours)
    user_data = found["LaunchTemplateVersions"][0]["LaunchTemplateData"]["UserData"]
    script = base64.b64decode(user_data).decode()
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "s3://our-models/models" in script

    functions = boto3.client("lambda").list_functions()["Functions"]
    read = {
        each["FunctionName"]: set(json.loads(each["Environment"]["Variables"]["SECRETS"]))
        for each in functions
    }
    assert read == {"queue-admission": {"REDIS_URL", *made["secret_arns"]["value"]}, **TICKS}
    told = boto3.client("ecs").describe_task_definition(taskDefinition="queue-service")
    (container,) = told["taskDefinition"]["containerDefinitions"]
    assert {"VESTIBULE_OWUI_JWT_SECRET", "VESTIBULE_DATABASE_URL", *read["queue-admission"]} == {
        each["name"] for each in container["secrets"]
    }
    _check_fleet(tmp_path, made)
    alarms = boto3.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert {f"queue-{name}" for name in ("queue-wait", "ticks-silent", "api-errors")} <= {
        each["AlarmName"] for each in alarms
    }

    # Nobody answers at chat.example.org: status says so, and what moto forgot.
    assert cli.main(["aws", "status", "queue", "--folder", str(folder)]) == 1
    shown = capfd.readouterr().out
    lines = [line.split() for line in shown.splitlines() if " will be " in line]
    changed = {each[1].split(".")[0] for each in lines if each[1].startswith("aws_")}
    assert changed <= FORGOTTEN
    assert "destroyed" not in shown
    assert "https://chat.example.org/readyz: " in shown

    assert cli.main(["aws", "destroy", "queue", "--folder", str(folder), "--confirm", "queue"]) == 0
    assert not boto3.client("lambda").list_functions()["Functions"]
    assert not json.loads((folder / "terraform.tfstate").read_text())["resources"]


def _check_fleet(folder: Path, made: dict[str, Any]) -> None:
    """The scheduler has its file, its token and a role; what is told of it is a fleet's file."""
    told = boto3.client("ecs").describe_task_definition(taskDefinition="queue-scheduler")
    task = told["taskDefinition"]
    (container,) = task["containerDefinitions"]
    settings = {each["name"]: each["value"] for each in container["environment"]}
    assert settings["FLEET"] == FLEET
    assert settings["VESTIBULE_FLEET"] in container["entryPoint"][2]
    assert {"REDIS_URL", "VESTIBULE_DATABASE_URL", "VESTIBULE_WORKER_TOKEN"} == {
        each["name"] for each in container["secrets"]
    }
    assert task["taskRoleArn"].endswith(":role/queue-fleet")
    policy = boto3.client("iam").get_role_policy(RoleName="queue-fleet", PolicyName="fleet")
    by_sid = {each["Sid"]: each for each in policy["PolicyDocument"]["Statement"]}
    assert by_sid["ImagesName"]["Resource"] == (
        f"arn:aws:ssm:{REGION}::parameter/aws/service/gpu/ami-id"
    )
    assert "Archive" not in by_sid
    template = made["worker_launch_template_id"]["value"]
    bound = by_sid["Machine"]["Condition"]["ArnEquals"]["ec2:LaunchTemplate"]
    assert bound.endswith(f":launch-template/{template}")

    (folder / "told.toml").write_text(made["fleet"]["value"])
    file = fleet_file.read(folder / "told.toml")
    settings = file.providers["aws"].settings
    assert (file.deployed.name, settings.launch_template) == ("queue", template)
    assert settings.subnets == made["subnets"]["value"]
    found = boto3.client("ec2").describe_subnets(SubnetIds=list(settings.subnets.values()))
    zones = {each["AvailabilityZone"]: each["SubnetId"] for each in found["Subnets"]}
    assert settings.subnets == zones


def test_elasticache_is_planned(
    aws: dict[str, str],
    words: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The provider checks its arguments; moto could not make it."""
    told = _told(
        tmp_path, {"domain": "chat.example.org", "certificate_arn": aws["certificate_arn"]}
    )
    monkeypatch.setattr("sys.stdin", _Refusing())
    assert cli.main(["aws", "deploy", "queue", *told]) == 1
    shown = capfd.readouterr().out
    assert "aws_elasticache_replication_group.main[0] will be created" in shown
    assert "nothing was changed" in shown
    assert 'redis-memory-queue-002"] will be created' in shown


class _Refusing:
    def isatty(self) -> bool:
        return True

    def readline(self, *_: int) -> str:
        return "no\n"

"""What must hold of Terraform's files, read as files: no Terraform and no AWS is needed."""

import ast
import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from admission.app import ROUTES
from admission.settings import Settings, setting_names
from infra.aws import package, status
from infra.aws.deployment import SOURCE
from infra.providers.aws.request import INSTANCE_TAG, MODEL_TAG, POOL_TAG
from scheduler import measures
from tests.aws import hcl
from worker_image import agent

ROOT = Path(__file__).parent.parent.parent
GUIDES = ("Developer Guide", "Service Authorization Reference")
REDIS_ALARMS = {"memory", "evictions", "cpu", "lag", "connections"}
ALARMS = {
    *("admission-errors", "admission-throttles", "ticks-errors", "ticks-throttles"),
    *("ticks-silent", "api-errors", "service-errors", "balancer-errors", "service-unhealthy"),
    *("service-away", "queue-wait", "usage-lost"),
}


def file(name: str) -> str:
    return (SOURCE / name).read_text()


def test_every_name_in_an_expression_exists_and_none_is_left_over() -> None:
    used, there = hcl.named(), set(hcl.blocks())
    assert used <= there, used - there
    asked = {name for name in there if name.startswith(("var.", "local.", "data.", "ephemeral."))}
    assert asked <= used, asked - used


def test_every_variable_and_output_is_described_and_typed() -> None:
    variables = hcl.of("var.")
    assert variables
    assert not [name for name, body in variables.items() if not body.get("description")]
    assert not [name for name, body in variables.items() if not body.get("type")]
    assert not [name for name, body in hcl.of("output.").items() if not body.get("description")]


def test_no_secret_is_a_variable_or_an_output() -> None:
    names = [*hcl.of("var."), *hcl.of("output.")]
    secret = re.compile(r"password|secret|token|(^|_)key(_|$)|_url$")
    told = {name for name in names if secret.search(name.split(".")[1])}
    assert told == {
        *("var.redis_url_secret_arn", "var.database_url_secret_arn", "output.secret_arns"),
        "var.secret_settings",  # by their ARNs
        *("var.redis_token_version", "var.redis_token_strategy"),
        *("output.functions_url", "output.repository_url"),
    }


def test_a_secret_setting_is_named_by_its_arn_and_any_other_may_be_given() -> None:
    settings, by_arn = (
        hcl.blocks()[f"var.{name}"]["validation"][0]["condition"]
        for name in ("settings", "secret_settings")
    )
    made_here = set(hcl.blocks()["local.made_keys"])
    (refused,) = re.findall(r'regex\("(.+?)"', settings)
    for field in Settings.model_fields.values():
        name = str(field.alias)
        said = f'"{name}"' in settings
        if "SecretStr" in str(field.annotation):
            assert re.search(refused, name), name
            assert not said, name
            assert name in made_here or f'"{name}"' in by_arn, name
        elif not name.endswith("_URL"):
            assert said or not re.search(refused, name), name


def test_a_policy_allows_what_is_done_to_what_is_ours() -> None:
    statements = hcl.statements()
    assert len(statements) >= 15
    for each in statements:
        assert each["actions"], each
        assert not [action for action in each["actions"] if "*" in action], each
    alike = [each for each in statements if each.get("resources") == ["*"]]
    assert {each["sid"] for each in alike} == {"Network", "NotTheCode", "Registry", "See"}


def test_where_aws_knows_no_resource_its_page_is_named() -> None:
    for path in hcl.files():
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if line.strip() == 'resources = ["*"]' and "NotTheCode" not in _above(lines, number):
                assert any(guide in _above(lines, number) for guide in GUIDES), (path, number)


def _above(lines: list[str], number: int) -> str:
    return "\n".join(lines[max(0, number - 20) : number])


def test_the_api_is_throttled_and_its_log_names_nobody() -> None:
    (stage,) = hcl.of("aws_apigatewayv2_stage.").values()
    (limits,) = stage["default_route_settings"]
    assert limits["throttling_rate_limit"] == "${var.api_rate}"
    assert limits["throttling_burst_limit"] == "${var.api_burst}"
    logged = set(re.findall(r"\$context\.([\w.]+)", file("api.tf")))
    assert logged == {
        *("requestId", "requestTime", "identity.sourceIp", "httpMethod", "status"),
        *("responseLength", "responseLatency", "integrationLatency", "integrationStatus"),
        "error.messageString",
    }
    (balancer,) = hcl.of("aws_lb.").values()
    assert "access_logs" not in balancer, "it would hold ?token="


def test_redis_is_encrypted_asks_for_a_password_evicts_nothing_and_fails_over() -> None:
    (group,) = hcl.of("aws_elasticache_replication_group.").values()
    assert group["at_rest_encryption_enabled"] is True
    assert (group["transit_encryption_enabled"], group["transit_encryption_mode"]) == (
        True,
        "required",
    )
    assert "redis_token" in group["auth_token"]
    assert group["automatic_failover_enabled"] is group["multi_az_enabled"] is True
    assert hcl.blocks()["var.redis_snapshot_days"]["default"] >= 1
    (parameters,) = hcl.of("aws_elasticache_parameter_group.").values()
    assert parameters["parameter"] == [{"name": "maxmemory-policy", "value": "noeviction"}]
    assert '"rediss://' in file("redis.tf")
    assert '"redis://' not in file("redis.tf")


def test_keys_are_made_in_aws_and_stand_in_no_state() -> None:
    version = hcl.blocks()["aws_secretsmanager_secret_version.key"]
    assert version["secret_string_wo"].startswith("${ephemeral.")
    assert "secret_string" not in version
    assert set(hcl.blocks()["local.made_keys"]) == {
        *("VESTIBULE_SERVICE_KEY", "VESTIBULE_ADMIN_KEY", "VESTIBULE_WORKER_TOKEN")
    }


def test_every_variable_of_an_environment_is_a_setting() -> None:
    given = set(re.findall(r"\b(VESTIBULE_\w+|REDIS_URL|WORKER_AGENT_SHA256)\b", _code()))
    assert len(given) >= 12
    assert given <= set(setting_names()), given - set(setting_names())
    function = hcl.of("aws_lambda_function.")["aws_lambda_function.this"]["environment"]
    assert set(re.findall(r"\b[A-Z][A-Z_]{4,}\b", str(function))) == {
        *("AWS_LAMBDA_EXEC_WRAPPER", "SECRETS")
    }


def _code() -> str:
    return "\n".join(hcl.code(path) for path in hcl.files())


def test_handlers_and_the_program_before_them_exist() -> None:
    handlers = re.findall(r'handler += "([\w.]+)"', file("functions.tf"))
    assert set(handlers) == set(package.HANDLERS)
    for handler in handlers:
        module, _, name = handler.rpartition(".")
        assert callable(getattr(import_module(module), name))
    (wrapper,) = re.findall(r'AWS_LAMBDA_EXEC_WRAPPER = "/var/task/(\w+)"', file("functions.tf"))
    assert wrapper in package.PROGRAMS


def test_ports_paths_and_commands_are_the_codes() -> None:
    there = hcl.blocks()
    assert there["local.service_port"] == Settings.model_fields["port"].default
    assert str(there["local.worker_port"]) == agent.OPTIONS["port"][2]
    (target,) = hcl.of("aws_lb_target_group.").values()
    (health,) = target["health_check"]
    paths = {getattr(route, "path", "") for routes in ROUTES for route in routes}
    assert health["path"] in paths
    commands = re.findall(r'command = \["(\w+)"\]', file("service.tf"))
    assert commands == ["admission", "scheduler"]
    for command in commands:
        assert import_module(f"infra.{command}").configure


def test_a_stream_outlives_the_proxy_and_a_container_its_answers() -> None:
    there = hcl.blocks()
    assert there["local.idle_timeout"] == "${var.silence_timeout + 60}"
    assert "VESTIBULE_KEEPALIVE_TIMEOUT = tostring(local.idle_timeout + 60)" in file("service.tf")
    (target,) = hcl.of("aws_lb_target_group.").values()
    assert target["deregistration_delay"] == "${var.drain}"
    assert there["var.drain"]["default"] >= 120, "as long as a finishing answer may take (DESIGN 4)"
    (stickiness,) = target["stickiness"]
    assert stickiness["enabled"] is False
    for service in hcl.of("aws_ecs_service.").values():
        assert service["deployment_circuit_breaker"] == [{"enable": True, "rollback": True}]
    listener = there["aws_lb_listener.https"]
    assert (listener["protocol"], listener["certificate_arn"]) == (
        "HTTPS",
        "${var.certificate_arn}",
    )
    assert "default" not in there["var.certificate_arn"]


def test_what_the_commands_read_is_told() -> None:
    told = {name.removeprefix("output.") for name in hcl.of("output.")}
    assert {*status.PACKAGE, *status.ASKED} <= told


def test_functions_are_bounded_and_the_schedule_calls_the_ticks() -> None:
    function = hcl.blocks()["aws_lambda_function.this"]
    assert function["reserved_concurrent_executions"] == "${each.value.concurrency}"
    (schedule,) = hcl.of("aws_scheduler_schedule.").values()
    assert schedule["schedule_expression"] == "rate(1 minute)"
    (target,) = schedule["target"]
    assert "ticks" in target["arn"]
    assert target["input"] == "${jsonencode({})}"


def test_a_worker_trusts_imds_2_alone_and_its_user_data_holds_no_secret() -> None:
    template = hcl.blocks()["aws_launch_template.worker"]
    (metadata,) = template["metadata_options"]
    assert (metadata["http_tokens"], metadata["http_put_response_hop_limit"]) == ("required", 1)
    (disk,) = template["block_device_mappings"]
    assert disk["ebs"][0]["encrypted"] is True
    assert disk["ebs"][0]["volume_type"] == "gp3"
    script = file("worker.sh.tftpl")
    call = file("workers.tf").partition("templatefile(")[2].partition("}))")[0]
    given = set(re.findall(r"^ {4}(\w+) += ", call, re.M))
    used = set(re.findall(r"\$\{(\w+)\}", script)) | set(re.findall(r"%\{ if (\w+)", script))
    assert used == given
    settings = {option[0] for option in agent.OPTIONS.values()}
    assert set(re.findall(r"^(VESTIBULE_\w+|WORKER_\w+)=", script, re.M)) <= settings
    assert "VESTIBULE_WORKER_TOKEN=$token" in script
    assert "get-secret-value" in script
    # It is who its tags say, or it is never counted as the machine that was ordered.
    assert metadata["instance_metadata_tags"] == "enabled"
    assert set(re.findall(r"\$\(tag ([a-z-]+)\)", script)) == {INSTANCE_TAG, POOL_TAG, MODEL_TAG}
    assert "VESTIBULE_WORKER_ID=$name" in script


def test_every_alarm_is_there_and_the_docs_say_what_to_do() -> None:
    text = file("alarms.tf")
    named = set(re.findall(r"^ {4}([a-z-]+) += \{ namespace", text, re.M))
    assert named == ALARMS
    assert set(hcl.blocks()["local.redis_limits"]) == REDIS_ALARMS
    docs = (ROOT / "docs" / "aws.md").read_text()
    for name in (*ALARMS, *(f"redis-{name}" for name in REDIS_ALARMS)):
        assert f"`{name}" in docs, name
    resource = hcl.blocks()["aws_cloudwatch_metric_alarm.this"]
    assert resource["alarm_actions"] == ["${local.topic_arn}"]


def test_the_alarm_on_waits_reads_what_the_function_tells() -> None:
    (line,) = re.findall(r"^ {4}queue-wait .*", file("alarms.tf"), re.M)
    assert f'namespace = "{measures.NAMESPACE}"' in line
    (metric,) = re.findall(r'metric = "(\w+)"', line)
    assert metric in measures.METRICS
    assert "dimensions = { function = aws_lambda_function.this" in line


def test_what_the_log_is_searched_for_is_logged() -> None:
    (found,) = hcl.of("aws_cloudwatch_log_metric_filter.").values()
    words = set(re.findall(r"\?(\w+)", found["pattern"]))
    tree = ast.parse((ROOT / "admission" / "accounting" / "journal.py").read_text())
    strings: set[Any] = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert words
    assert words <= strings


def test_the_docs_name_every_variable_without_a_default() -> None:
    docs = (ROOT / "docs" / "aws.md").read_text()
    made = {"name", "region", "package", "package_hash"}  # by the command
    needed = {
        name.removeprefix("var.") for name, body in hcl.of("var.").items() if "default" not in body
    }
    assert made < needed
    assert not [name for name in needed - made if f"{name} " not in docs], json.dumps([*needed])

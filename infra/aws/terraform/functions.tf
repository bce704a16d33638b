# Two functions from one package: every operation without a stream, and the ticks.

locals {
  functions = {
    admission = {
      handler     = "admission.functions.handler"
      timeout     = 25 # it ends a call after 20 s; the API waits for 29
      concurrency = var.function_concurrency
    }
    ticks = {
      handler     = "scheduler.functions.handler"
      timeout     = 90 # it bounds each tick by what is left of this
      concurrency = 2  # one may still run when the next begins
    }
  }

  # Settings of everything of ours that runs.
  settings = merge(
    { VESTIBULE_WORKER_NETWORKS = join(",", local.private_cidrs) },
    var.worker_agent_sha256 == "" ? {} : { WORKER_AGENT_SHA256 = var.worker_agent_sha256 },
    var.settings,
  )
}

resource "aws_lambda_function" "this" {
  for_each      = local.functions
  function_name = "${var.name}-${each.key}"
  description   = "Vestibule: ${each.value.handler}"
  role          = aws_iam_role.function[each.key].arn

  filename         = var.package
  source_code_hash = var.package_hash
  handler          = each.value.handler
  runtime          = var.runtime
  architectures    = [var.architecture]

  memory_size                    = var.function_memory
  timeout                        = each.value.timeout
  reserved_concurrent_executions = each.value.concurrency

  vpc_config {
    subnet_ids         = local.private_ids
    security_group_ids = [aws_security_group.this["functions"].id]
  }

  environment {
    variables = merge(local.settings, {
      # Asks Secrets Manager and puts what it says into the environment (infra/aws/secrets_first.py).
      AWS_LAMBDA_EXEC_WRAPPER = "/var/task/secrets_first"
      SECRETS = jsonencode({
        for name in local.secrets_of[each.key] : name => merge(
          { SecretId = local.secrets[name].arn },
          local.secrets[name].version == "" ? {} : { VersionId = local.secrets[name].version },
        )
      })
    })
  }

  logging_config {
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.function[each.key].name
  }

  depends_on = [aws_iam_role_policy.function]
}

# A tick that failed is not tried again: the next comes within a minute.
resource "aws_lambda_function_event_invoke_config" "ticks" {
  function_name                = aws_lambda_function.this["ticks"].function_name
  maximum_retry_attempts       = 0
  maximum_event_age_in_seconds = 60
}

resource "aws_cloudwatch_log_group" "function" {
  for_each          = local.functions
  name              = "/aws/lambda/${var.name}-${each.key}"
  retention_in_days = var.log_days
}

resource "aws_iam_role" "function" {
  for_each           = local.functions
  name               = "${var.name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.function_trust.json
}

data "aws_iam_policy_document" "function_trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

resource "aws_iam_role_policy" "function" {
  for_each = local.functions
  name     = "function"
  role     = aws_iam_role.function[each.key].id
  policy   = data.aws_iam_policy_document.function[each.key].json
}

data "aws_iam_policy_document" "function" {
  for_each = local.functions

  statement {
    sid       = "Secrets"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [for name in local.secrets_of[each.key] : local.secrets[name].arn]
  }

  statement {
    sid       = "Logs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.function[each.key].arn}:*"] # its streams, which Lambda names
  }

  # Lambda makes the function's network interfaces with this role, and checks it against no resource:
  # Lambda Developer Guide, "Giving Lambda functions access to resources in an Amazon VPC".
  statement {
    sid = "Network"
    actions = [
      "ec2:AssignPrivateIpAddresses",
      "ec2:CreateNetworkInterface",
      "ec2:DeleteNetworkInterface",
      "ec2:DescribeNetworkInterfaces",
      "ec2:DescribeSubnets",
      "ec2:UnassignPrivateIpAddresses",
    ]
    resources = ["*"]
  }

  # The same page: Lambda may, the code in the function may not.
  statement {
    sid    = "NotTheCode"
    effect = "Deny"
    actions = [
      "ec2:AssignPrivateIpAddresses",
      "ec2:CreateNetworkInterface",
      "ec2:DeleteNetworkInterface",
      "ec2:DescribeNetworkInterfaces",
      "ec2:DescribeSubnets",
      "ec2:UnassignPrivateIpAddresses",
    ]
    resources = ["*"]
    condition {
      test     = "ArnEquals"
      variable = "lambda:SourceFunctionArn"
      values   = ["arn:${data.aws_partition.current.partition}:lambda:${var.region}:${data.aws_caller_identity.current.account_id}:function:${var.name}-${each.key}"]
    }
  }
}

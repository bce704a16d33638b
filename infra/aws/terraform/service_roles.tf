# What Fargate may do to start a container: fetch its image and secrets, write its log. The code in
# the container has no role at all, but for the scheduler's where there is a fleet (fleet.tf).

locals {
  # ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME[:TAG|@DIGEST]; other registries ask for no permission.
  images = { service = local.image, worker = var.worker_image }
  ecr = {
    for who, image in local.images : who => try(regex("^([0-9]{12})\\.dkr\\.ecr\\.([a-z0-9-]+)\\.[^/]+/([^:@]+)", image), null)
  }
  repository_arns = {
    for who, parts in local.ecr : who => parts == null ? [] : ["arn:${data.aws_partition.current.partition}:ecr:${parts[1]}:${parts[0]}:repository/${parts[2]}"]
  }
}

resource "aws_iam_role" "container" {
  for_each           = local.containers
  name               = "${var.name}-${each.key}-start"
  assume_role_policy = data.aws_iam_policy_document.container_trust.json
}

data "aws_iam_policy_document" "container_trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

resource "aws_iam_role_policy" "container" {
  for_each = local.containers
  name     = "start"
  role     = aws_iam_role.container[each.key].id
  policy   = data.aws_iam_policy_document.container[each.key].json
}

data "aws_iam_policy_document" "container" {
  for_each = local.containers

  statement {
    sid       = "Secrets"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [for name in local.secrets_of[each.key] : local.secrets[name].arn]
  }

  statement {
    sid       = "Logs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.container[each.key].arn}:*"] # its streams, which ECS names
  }

  dynamic "statement" {
    for_each = local.repository_arns.service
    content {
      sid       = "Image"
      actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
      resources = [statement.value]
    }
  }

  # Knows no resource: Service Authorization Reference, "Actions, resources, and condition keys for
  # Amazon Elastic Container Registry".
  dynamic "statement" {
    for_each = local.repository_arns.service
    content {
      sid       = "Registry"
      actions   = ["ecr:GetAuthorizationToken"]
      resources = ["*"]
    }
  }
}

# What a machine with GPUs is launched from. Who launches it (`worker_launch_template_id` among the
# outputs) chooses kind, zone and number.

locals {
  worker_port = 9001
  model_arns  = var.model_bucket == "" ? [] : ["arn:${data.aws_partition.current.partition}:s3:::${var.model_bucket}"]
}

resource "aws_launch_template" "worker" {
  name                                 = "${var.name}-worker"
  description                          = "Vestibule's agent and vLLM"
  update_default_version               = true
  image_id                             = var.worker_ami
  instance_type                        = var.worker_instance_types[0]
  instance_initiated_shutdown_behavior = "terminate"
  vpc_security_group_ids               = [aws_security_group.this["workers"].id]

  iam_instance_profile {
    arn = aws_iam_instance_profile.worker.arn
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required" # IMDSv2
    http_put_response_hop_limit = 1          # the machine itself, not a container on it
    instance_metadata_tags      = "enabled"  # they tell a machine who it is
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_type           = "gp3"
      volume_size           = var.worker_disk
      throughput            = 500 # MiB/s; a model of 16 GB is read in half a minute
      iops                  = 4000
      encrypted             = true
      delete_on_termination = true
    }
  }

  tag_specifications {
    resource_type = "instance"
    tags          = { Name = "${var.name}-worker", deployment = var.name, managed-by = "vestibule" }
  }

  tag_specifications {
    resource_type = "volume"
    tags          = { Name = "${var.name}-worker", deployment = var.name, managed-by = "vestibule" }
  }

  # Names the secret, holds none: anybody who may describe templates reads this.
  user_data = base64encode(templatefile("${path.module}/worker.sh.tftpl", {
    region         = var.region
    token_secret   = aws_secretsmanager_secret.key["VESTIBULE_WORKER_TOKEN"].arn
    image          = var.worker_image
    registry       = local.ecr.worker == null ? "" : split("/", var.worker_image)[0]
    port           = local.worker_port
    model          = var.worker_model
    model_archive  = var.model_archive
    model_source   = var.model_bucket == "" ? "" : "s3://${var.model_bucket}/${var.model_prefix}"
    admission_url  = "https://${var.domain}"
    slots          = var.worker_slots
    vllm_arguments = var.worker_vllm_arguments
    agent_sha256   = var.worker_agent_sha256
    drain_s        = 120 # as `vestibule image` has it
    stop_s         = 160
  }))
}

resource "aws_iam_instance_profile" "worker" {
  name = "${var.name}-worker"
  role = aws_iam_role.worker.name
}

resource "aws_iam_role" "worker" {
  name               = "${var.name}-worker"
  assume_role_policy = data.aws_iam_policy_document.worker_trust.json
}

data "aws_iam_policy_document" "worker_trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role_policy" "worker" {
  name   = "worker"
  role   = aws_iam_role.worker.id
  policy = data.aws_iam_policy_document.worker.json
}

data "aws_iam_policy_document" "worker" {
  statement {
    sid       = "Token"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [aws_secretsmanager_secret.key["VESTIBULE_WORKER_TOKEN"].arn]
  }

  dynamic "statement" {
    for_each = local.model_arns
    content {
      sid       = "Models"
      actions   = ["s3:GetObject"]
      resources = ["${statement.value}/${var.model_prefix}/*"] # the objects of that folder
    }
  }

  dynamic "statement" {
    for_each = local.model_arns
    content {
      sid       = "ModelNames"
      actions   = ["s3:ListBucket"]
      resources = [statement.value]
      condition {
        test     = "StringLike"
        variable = "s3:prefix"
        values   = ["${var.model_prefix}/*"]
      }
    }
  }

  dynamic "statement" {
    for_each = local.repository_arns.worker
    content {
      sid       = "Image"
      actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
      resources = [statement.value]
    }
  }

  # Knows no resource: Service Authorization Reference, "Actions, resources, and condition keys for
  # Amazon Elastic Container Registry".
  dynamic "statement" {
    for_each = local.repository_arns.worker
    content {
      sid       = "Registry"
      actions   = ["ecr:GetAuthorizationToken"]
      resources = ["*"]
    }
  }
}

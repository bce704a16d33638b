# What lets the scheduler run a fleet: its file, and a role that may launch from the workers' template,
# see what there is, and end what carries this deployment's tag. Without a file there is neither.

locals {
  has_fleet  = var.fleet_file != ""
  fleet_path = "${local.state_dir}/fleet.toml"
  account    = data.aws_caller_identity.current.account_id
  ec2_arn    = "arn:${data.aws_partition.current.partition}:ec2:${var.region}"

  # One in each zone, as a fleet's file names them.
  subnets_of = local.has_vpc ? { for each in data.aws_subnet.private : each.availability_zone => each.id... } : { for each in aws_subnet.private : each.availability_zone => each.id... }
  subnets    = { for zone, ids in local.subnets_of : zone => sort(ids)[0] }

  # resolve:ssm:NAME, maybe with :VERSION. Those of AWS belong to no account.
  image_parameters = [for name in regexall("^resolve:ssm:([^:]+)", var.worker_ami) : trimprefix(name[0], "/")]
  image_parameter_arns = [
    for name in local.image_parameters :
    "arn:${data.aws_partition.current.partition}:ssm:${var.region}:${startswith(name, "aws/service/") ? "" : local.account}:parameter/${name}"
  ]

  archive_arns = [for key in regexall("^s3://(.+)$", var.model_archive) : "arn:${data.aws_partition.current.partition}:s3:::${key[0]}"]
}

resource "aws_iam_role" "fleet" {
  count              = local.has_fleet ? 1 : 0
  name               = "${var.name}-fleet"
  assume_role_policy = data.aws_iam_policy_document.container_trust.json
}

resource "aws_iam_role_policy" "fleet" {
  count  = local.has_fleet ? 1 : 0
  name   = "fleet"
  role   = aws_iam_role.fleet[0].id
  policy = data.aws_iam_policy_document.fleet.json
}

data "aws_iam_policy_document" "fleet" {
  statement {
    sid       = "Machine"
    actions   = ["ec2:RunInstances"]
    resources = ["${local.ec2_arn}:${local.account}:instance/*"]
    condition {
      test     = "ArnEquals"
      variable = "ec2:LaunchTemplate"
      values   = [aws_launch_template.worker.arn]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/vestibule-deployment"
      values   = [var.name]
    }
    condition {
      test     = "StringEquals"
      variable = "ec2:InstanceType"
      values   = var.worker_instance_types
    }
  }

  statement {
    sid       = "Disk"
    actions   = ["ec2:RunInstances"]
    resources = ["${local.ec2_arn}:${local.account}:volume/*"]
    condition {
      test     = "ArnEquals"
      variable = "ec2:LaunchTemplate"
      values   = [aws_launch_template.worker.arn]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/vestibule-deployment"
      values   = [var.name]
    }
  }

  # Knows no key for templates.
  statement {
    sid       = "Spot"
    actions   = ["ec2:RunInstances"]
    resources = ["${local.ec2_arn}:${local.account}:spot-instances-request/*"]
    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/vestibule-deployment"
      values   = [var.name]
    }
  }

  statement {
    sid     = "Place"
    actions = ["ec2:RunInstances"]
    resources = concat([
      "${local.ec2_arn}::image/*",
      "${local.ec2_arn}:${local.account}:network-interface/*",
      aws_launch_template.worker.arn,
      aws_security_group.this["workers"].arn,
    ], [for id in local.private_ids : "${local.ec2_arn}:${local.account}:subnet/${id}"])
    condition {
      test     = "ArnEquals"
      variable = "ec2:LaunchTemplate"
      values   = [aws_launch_template.worker.arn]
    }
  }

  statement {
    sid       = "Name"
    actions   = ["ec2:CreateTags"]
    resources = [for kind in ["instance", "volume", "spot-instances-request"] : "${local.ec2_arn}:${local.account}:${kind}/*"]
    condition { # while it is made, never later
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values   = ["RunInstances"]
    }
  }

  statement {
    sid       = "End"
    actions   = ["ec2:TerminateInstances", "ec2:DeleteVolume"]
    resources = [for kind in ["instance", "volume"] : "${local.ec2_arn}:${local.account}:${kind}/*"]
    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/vestibule-deployment"
      values   = [var.name]
    }
  }

  # Know no resource: Service Authorization Reference, "Actions, resources, and condition keys for
  # Amazon EC2".
  statement {
    sid = "See"
    actions = concat([
      "ec2:DescribeInstances", "ec2:DescribeVolumes", "ec2:DescribeSpotInstanceRequests", "ec2:DescribeSpotPriceHistory",
    ], var.model_archive == "" ? [] : ["ec2:DescribeLaunchTemplateVersions"])
    resources = ["*"]
  }

  statement {
    sid       = "WorkersRole"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.worker.arn]
    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ec2.amazonaws.com"]
    }
  }

  # EC2 makes it at the account's first spot machine, in the name of who asks for that.
  statement {
    sid       = "SpotsRole"
    actions   = ["iam:CreateServiceLinkedRole"]
    resources = ["arn:${data.aws_partition.current.partition}:iam::${local.account}:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"]
    condition {
      test     = "StringEquals"
      variable = "iam:AWSServiceName"
      values   = ["spot.amazonaws.com"]
    }
  }

  dynamic "statement" {
    for_each = local.image_parameter_arns
    content {
      sid       = "ImagesName"
      actions   = ["ssm:GetParameters"]
      resources = [statement.value]
    }
  }

  # A URL may do what its signer may.
  dynamic "statement" {
    for_each = local.archive_arns
    content {
      sid       = "Archive"
      actions   = ["s3:GetObject"]
      resources = [statement.value]
    }
  }
}

# Where the state lies is chosen by `vestibule aws deploy`, which writes the backend beside these
# files: S3 with a lock file, or a local file when told so.

terraform {
  # 1.11: write-only arguments, so that no key lies in the state; 1.10: the lock file in S3.
  required_version = ">= 1.11.0"

  required_providers {
    aws = {
      source = "hashicorp/aws"
      # The one the tests run: with ephemeral random passwords and write-only secrets.
      version = "~> 5.100"
    }
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = merge({ deployment = var.name, managed-by = "vestibule" }, var.tags)
  }
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_availability_zones" "available" {
  state = "available"

  filter { # no local zones, which have neither load balancers nor ElastiCache
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

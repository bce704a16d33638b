# The ticks, each minute: EventBridge knows no finer rate. In between joins and heartbeats end what is
# due and offer what is free (docs/functions.md); where a scheduler container runs it ticks by the
# second under the same leases, and leaves nothing to do. The queues are measured here in any case.

resource "aws_scheduler_schedule_group" "main" {
  name = var.name
}

resource "aws_scheduler_schedule" "ticks" {
  name                = "${var.name}-ticks"
  group_name          = aws_scheduler_schedule_group.main.name
  description         = "Vestibule: all ticks"
  schedule_expression = "rate(1 minute)"

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_lambda_function.this["ticks"].arn
    role_arn = aws_iam_role.schedules.arn
    input    = jsonencode({}) # all there are

    retry_policy {
      maximum_retry_attempts       = 0 # the next comes within a minute
      maximum_event_age_in_seconds = 60
    }
  }
}

resource "aws_iam_role" "schedules" {
  name               = "${var.name}-schedules"
  assume_role_policy = data.aws_iam_policy_document.schedules_trust.json
}

data "aws_iam_policy_document" "schedules_trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["scheduler.amazonaws.com"]
    }
    condition { # no schedule of somebody else's
      test     = "StringEquals"
      variable = "aws:SourceArn"
      values   = [aws_scheduler_schedule_group.main.arn]
    }
  }
}

resource "aws_iam_role_policy" "schedules" {
  name   = "schedules"
  role   = aws_iam_role.schedules.id
  policy = data.aws_iam_policy_document.schedules.json
}

data "aws_iam_policy_document" "schedules" {
  statement {
    actions   = ["lambda:InvokeFunction"]
    resources = [aws_lambda_function.this["ticks"].arn]
  }
}

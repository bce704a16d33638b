# What a person should hear of. Each is an entry of one map; docs/aws.md says what each means and what
# to do. What is not said of an alarm: more than `threshold`, `sum`, five minutes of one minute each.

locals {
  topic_arn = var.alarm_topic_arn != "" ? var.alarm_topic_arn : aws_sns_topic.alarms[0].arn

  redis_limits = { # of each machine; ElastiCache User Guide, "Which Metrics Should I Monitor?"
    memory      = { metric = "DatabaseMemoryUsagePercentage", threshold = 75, statistic = "Maximum", says = "Memory is filling up: at 100 % joins are refused, as nothing is evicted." }
    evictions   = { metric = "Evictions", threshold = 0, statistic = "Sum", says = "Keys were evicted, each a lost place: maxmemory-policy is not noeviction." }
    cpu         = { metric = "EngineCPUUtilization", threshold = 80, statistic = "Average", says = "The engine's one core is nearly full." }
    lag         = { metric = "ReplicationLag", threshold = 5, statistic = "Maximum", says = "A replica is behind: a failover now would lose that much." }
    connections = { metric = "CurrConnections", threshold = 50000, statistic = "Maximum", says = "Connections near the engine's 65,000." }
  }

  redis_alarms = merge([
    for node in local.redis_nodes : {
      for name, limit in local.redis_limits : "redis-${name}-${node}" => merge(limit, {
        namespace = "AWS/ElastiCache", dimensions = { CacheClusterId = node }
      })
    }
  ]...)

  ticks     = { FunctionName = aws_lambda_function.this["ticks"].function_name }
  admission = { FunctionName = aws_lambda_function.this["admission"].function_name }
  balancer  = { LoadBalancer = aws_lb.main.arn_suffix }
  targets   = { LoadBalancer = aws_lb.main.arn_suffix, TargetGroup = aws_lb_target_group.service.arn_suffix }

  alarms = merge(local.redis_alarms, {
    admission-errors    = { namespace = "AWS/Lambda", metric = "Errors", dimensions = local.admission, threshold = 0, periods = 3, says = "The admission function fails: settings, Redis or time." }
    admission-throttles = { namespace = "AWS/Lambda", metric = "Throttles", dimensions = local.admission, threshold = 0, periods = 3, says = "More calls at once than function_concurrency." }
    ticks-errors        = { namespace = "AWS/Lambda", metric = "Errors", dimensions = local.ticks, threshold = 0, periods = 3, says = "Ticks fail three minutes in a row; the function's log names them." }
    ticks-throttles     = { namespace = "AWS/Lambda", metric = "Throttles", dimensions = local.ticks, threshold = 0, periods = 3, says = "Ticks take longer than the minute between them." }
    ticks-silent        = { namespace = "AWS/Lambda", metric = "Invocations", dimensions = local.ticks, threshold = 1, comparison = "LessThanThreshold", missing = "breaching", says = "Nobody calls the ticks." }
    api-errors          = { namespace = "AWS/ApiGateway", metric = "5xx", dimensions = { ApiId = aws_apigatewayv2_api.main.id }, threshold = 5, periods = 3, says = "The API answers 5xx." }
    service-errors      = { namespace = "AWS/ApplicationELB", metric = "HTTPCode_Target_5XX_Count", dimensions = local.targets, threshold = 20, says = "The service answers 5xx: Redis away, workers away or full." }
    balancer-errors     = { namespace = "AWS/ApplicationELB", metric = "HTTPCode_ELB_5XX_Count", dimensions = local.balancer, threshold = 5, says = "The load balancer itself answers 5xx: no container, or one that cut a connection." }
    service-unhealthy   = { namespace = "AWS/ApplicationELB", metric = "UnHealthyHostCount", dimensions = local.targets, statistic = "Maximum", threshold = 0, says = "A container is not ready: /readyz says why." }
    service-away        = { namespace = "AWS/ApplicationELB", metric = "HealthyHostCount", dimensions = local.targets, statistic = "Minimum", threshold = min(var.tasks_min, 1), comparison = "LessThanThreshold", missing = var.tasks_min == 0 ? "notBreaching" : "breaching", periods = 3, says = "No container is ready." }
    queue-wait          = { namespace = "Vestibule", metric = "first_waits_s", dimensions = { function = aws_lambda_function.this["ticks"].function_name }, statistic = "Maximum", threshold = var.wait_alarm, says = "Whoever is first in a queue has waited too long: too few workers, or nobody leaves." }
    usage-lost          = { namespace = "Vestibule", metric = "${var.name}-usage-lost", dimensions = {}, threshold = 0, periods = 1, says = "Records of the accounting cannot be kept or were dropped." }
  })
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each            = local.alarms
  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.says
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = try(each.value.statistic, "Sum")
  comparison_operator = try(each.value.comparison, "GreaterThanThreshold")
  threshold           = each.value.threshold
  period              = 60
  evaluation_periods  = try(each.value.periods, 5)
  treat_missing_data  = try(each.value.missing, "notBreaching")
  alarm_actions       = [local.topic_arn]
  ok_actions          = [local.topic_arn]
}

# Not encrypted with SNS' own key, which alarms may not use (SNS Developer Guide, "Enable compatibility
# between event sources from AWS services and encrypted topics"); an alarm says nothing secret.
resource "aws_sns_topic" "alarms" {
  count = var.alarm_topic_arn == "" ? 1 : 0
  name  = "${var.name}-alarms"
}

# What admission/accounting/journal.py writes when records cannot be kept.
resource "aws_cloudwatch_log_metric_filter" "usage_lost" {
  name           = "${var.name}-usage-lost"
  log_group_name = aws_cloudwatch_log_group.container["service"].name
  pattern        = "?usage_lost ?usage_waits"

  metric_transformation {
    namespace     = "Vestibule"
    name          = "${var.name}-usage-lost"
    value         = "1"
    default_value = "0"
  }
}

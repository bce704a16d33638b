# Service and scheduler as containers on Fargate. The service answers REST, streams, WebSockets, the
# gateway and pages on one port; the scheduler ticks by the second and brings what was used into SQL.

locals {
  service_port = 8600
  state_dir    = "/state"
  image        = var.image != "" ? var.image : "${aws_ecr_repository.main.repository_url}:${var.image_tag}"

  idle_timeout = var.silence_timeout + 60

  service_settings = merge(local.settings, {
    VESTIBULE_HOST            = "0.0.0.0"
    VESTIBULE_PORT            = tostring(local.service_port)
    VESTIBULE_PROCESSES       = tostring(floor(var.task_cpu / 1024))
    VESTIBULE_STATE_DIR       = local.state_dir
    VESTIBULE_TRUSTED_PROXIES = join(",", local.entrance_cidrs)
    VESTIBULE_SILENCE_TIMEOUT = tostring(var.silence_timeout)
    # Longer than the load balancer keeps an idle connection, or it would send a call into one that
    # is just being closed (Elastic Load Balancing guide, "Troubleshoot": HTTP 502).
    VESTIBULE_KEEPALIVE_TIMEOUT = tostring(local.idle_timeout + 60)
  })

  scheduler_settings = merge(
    local.settings,
    { VESTIBULE_STATE_DIR = local.state_dir },
    local.has_fleet ? { VESTIBULE_FLEET = local.fleet_path, FLEET = file(var.fleet_file) } : {},
  )

  # The fleet's file comes with the task's definition: all copies of it have the same, and another
  # file is another definition, by which they are replaced. `$0` is the command.
  scheduler_entry = local.has_fleet ? ["sh", "-c", "printf %s \"$FLEET\" > ${local.fleet_path} && exec vestibule $0"] : ["vestibule"]

  containers = {
    service   = { entry = ["vestibule"], command = ["admission"], settings = local.service_settings, ports = [local.service_port] }
    scheduler = { entry = local.scheduler_entry, command = ["scheduler"], settings = local.scheduler_settings, ports = [] }
  }
}

resource "aws_ecr_repository" "main" {
  name                 = var.name
  image_tag_mutability = "IMMUTABLE"
  force_delete         = !var.is_protected

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "AES256"
  }
}

resource "aws_ecs_cluster" "main" {
  name = var.name
}

resource "aws_cloudwatch_log_group" "container" {
  for_each          = local.containers
  name              = "/vestibule/${var.name}/${each.key}"
  retention_in_days = var.log_days
}

resource "aws_ecs_task_definition" "this" {
  for_each                 = local.containers
  family                   = "${var.name}-${each.key}"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = each.key == "service" ? var.task_cpu : 256
  memory                   = each.key == "service" ? var.task_memory : 512
  execution_role_arn       = aws_iam_role.container[each.key].arn
  task_role_arn            = each.key == "scheduler" && local.has_fleet ? aws_iam_role.fleet[0].arn : null # nothing else asks AWS

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = upper(var.architecture)
  }

  volume {
    name = "state"
  }

  container_definitions = jsonencode([{
    name                   = each.key
    image                  = local.image
    entryPoint             = each.value.entry
    command                = each.value.command
    essential              = true
    readonlyRootFilesystem = true
    stopTimeout            = 30 # after SIGTERM running answers have 5 s; they had `drain` before
    linuxParameters        = { initProcessEnabled = true }
    ulimits                = [{ name = "nofile", softLimit = 65535, hardLimit = 65535 }] # each who waits is a connection
    mountPoints            = [{ sourceVolume = "state", containerPath = local.state_dir, readOnly = false }]
    portMappings           = [for port in each.value.ports : { containerPort = port, hostPort = port, protocol = "tcp" }]
    environment            = [for name in sort(keys(each.value.settings)) : { name = name, value = each.value.settings[name] }]
    secrets = [
      for name in local.secrets_of[each.key] : {
        name      = name
        valueFrom = local.secrets[name].version == "" ? local.secrets[name].arn : "${local.secrets[name].arn}:::${local.secrets[name].version}"
      }
    ]
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.container[each.key].name
        awslogs-region        = var.region
        awslogs-stream-prefix = "vestibule"
        mode                  = "non-blocking" # a log that is away holds nobody up
        max-buffer-size       = "4m"
      }
    }
  }])
}

resource "aws_ecs_service" "service" {
  name            = "service"
  cluster         = aws_ecs_cluster.main.id
  task_definition = aws_ecs_task_definition.this["service"].arn
  launch_type     = "FARGATE"
  desired_count   = var.tasks_min

  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  health_check_grace_period_seconds  = 60

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = local.private_ids
    security_groups  = [aws_security_group.this["service"].id]
    assign_public_ip = false
  }

  load_balancer {
    target_group_arn = aws_lb_target_group.service.arn
    container_name   = "service"
    container_port   = local.service_port
  }

  lifecycle {
    ignore_changes = [desired_count] # the autoscaling's
  }

  depends_on = [aws_lb_listener.https, aws_iam_role_policy.container]
}

resource "aws_ecs_service" "scheduler" {
  name            = "scheduler"
  cluster         = aws_ecs_cluster.main.id
  task_definition = aws_ecs_task_definition.this["scheduler"].arn
  launch_type     = "FARGATE"
  # Without a database it would bring what was used into a file that ends with the container.
  desired_count = var.database_url_secret_arn == "" ? 0 : min(var.tasks_min, 1)

  # Two at once do no harm (docs/redis.md), none for long is worse.
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = local.private_ids
    security_groups  = [aws_security_group.this["service"].id]
    assign_public_ip = false
  }

  depends_on = [aws_iam_role_policy.container, aws_iam_role_policy.fleet]
}

# --- how many --------------------------------------------------------------------------------------

resource "aws_appautoscaling_target" "service" {
  service_namespace  = "ecs"
  resource_id        = "service/${aws_ecs_cluster.main.name}/${aws_ecs_service.service.name}"
  scalable_dimension = "ecs:service:DesiredCount"
  min_capacity       = var.tasks_min
  max_capacity       = var.tasks_max
}

resource "aws_appautoscaling_policy" "service" {
  name               = "cpu"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.service.service_namespace
  resource_id        = aws_appautoscaling_target.service.resource_id
  scalable_dimension = aws_appautoscaling_target.service.scalable_dimension

  target_tracking_scaling_policy_configuration {
    target_value       = 60
    scale_out_cooldown = 60
    scale_in_cooldown  = 600 # whoever waits there has to connect again

    predefined_metric_specification {
      predefined_metric_type = "ECSServiceAverageCPUUtilization"
    }
  }
}

# Valkey on ElastiCache: a primary and its replicas in several zones, encrypted on the way and at rest,
# with a password. Its password is in the state, as ElastiCache has no other way to take it: so the
# state belongs into a bucket that few may read. Or none of this, and a Redis you have.

locals {
  has_redis   = var.redis_url_secret_arn != ""
  redis_nodes = local.has_redis ? [] : [for n in range(1 + var.redis_replicas) : format("%s-%03d", var.name, n + 1)]
}

resource "aws_elasticache_subnet_group" "main" {
  count       = local.has_redis ? 0 : 1
  name        = var.name
  description = "${var.name}: private subnets"
  subnet_ids  = local.private_ids
}

resource "aws_elasticache_parameter_group" "main" {
  count       = local.has_redis ? 0 : 1
  name        = "${var.name}-${var.redis_parameter_family}"
  family      = var.redis_parameter_family
  description = "${var.name}: nothing is evicted, an evicted key is a lost place"

  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_elasticache_replication_group" "main" {
  count                = local.has_redis ? 0 : 1
  replication_group_id = var.name
  description          = "${var.name}: queue, drafts, sessions, workers"
  engine               = "valkey"
  engine_version       = var.redis_engine_version
  parameter_group_name = aws_elasticache_parameter_group.main[0].name
  node_type            = var.redis_node_type
  port                 = var.redis_port

  num_cache_clusters         = 1 + var.redis_replicas
  automatic_failover_enabled = true
  multi_az_enabled           = true

  subnet_group_name  = aws_elasticache_subnet_group.main[0].name
  security_group_ids = [aws_security_group.redis[0].id]

  at_rest_encryption_enabled = true
  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  auth_token                 = data.aws_secretsmanager_secret_version.redis_token[0].secret_string
  auth_token_update_strategy = var.redis_token_strategy

  snapshot_retention_limit  = var.redis_snapshot_days
  snapshot_window           = "02:00-03:00"
  maintenance_window        = "sun:03:30-sun:04:30"
  final_snapshot_identifier = var.is_protected ? "${var.name}-final" : null

  auto_minor_version_upgrade = true
  apply_immediately          = false # in the maintenance window
}

# --- its password, and the URL that holds it -------------------------------------------------------

resource "aws_secretsmanager_secret" "redis_token" {
  count       = local.has_redis ? 0 : 1
  name_prefix = "${var.name}-redis-token-"
  description = "Redis' password"
}

ephemeral "aws_secretsmanager_random_password" "redis_token" {
  password_length     = 64
  exclude_punctuation = true # it stands in a URL
}

resource "aws_secretsmanager_secret_version" "redis_token" {
  count                    = local.has_redis ? 0 : 1
  secret_id                = aws_secretsmanager_secret.redis_token[0].id
  secret_string_wo         = ephemeral.aws_secretsmanager_random_password.redis_token.random_password
  secret_string_wo_version = var.redis_token_version

  lifecycle {
    create_before_destroy = true # who starts meanwhile finds one
  }
}

data "aws_secretsmanager_secret_version" "redis_token" {
  count      = local.has_redis ? 0 : 1
  secret_id  = aws_secretsmanager_secret.redis_token[0].id
  version_id = aws_secretsmanager_secret_version.redis_token[0].version_id
}

resource "aws_secretsmanager_secret" "redis_url" {
  count       = local.has_redis ? 0 : 1
  name_prefix = "${var.name}-redis-url-"
  description = "REDIS_URL"
}

resource "aws_secretsmanager_secret_version" "redis_url" {
  count     = local.has_redis ? 0 : 1
  secret_id = aws_secretsmanager_secret.redis_url[0].id
  secret_string = format(
    "rediss://:%s@%s:%d/0",
    data.aws_secretsmanager_secret_version.redis_token[0].secret_string,
    aws_elasticache_replication_group.main[0].primary_endpoint_address,
    var.redis_port,
  )

  lifecycle {
    create_before_destroy = true # who starts meanwhile finds one
  }
}

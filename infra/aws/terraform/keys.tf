# The keys, made here once and known to Secrets Manager alone: ephemeral values and write-only
# arguments stand in no state and in no plan. A new version of a secret renews who uses it, as each
# is asked for by its version.

locals {
  made_keys = {
    VESTIBULE_SERVICE_KEY  = "service-key"
    VESTIBULE_ADMIN_KEY    = "admin-key"
    VESTIBULE_WORKER_TOKEN = "worker-token"
  }

  secrets = merge(
    { for name, key in aws_secretsmanager_secret_version.key : name => { arn = aws_secretsmanager_secret.key[name].arn, version = key.version_id } },
    { REDIS_URL = local.has_redis ? { arn = var.redis_url_secret_arn, version = "" } : { arn = aws_secretsmanager_secret.redis_url[0].arn, version = aws_secretsmanager_secret_version.redis_url[0].version_id } },
    var.database_url_secret_arn == "" ? {} : { VESTIBULE_DATABASE_URL = { arn = var.database_url_secret_arn, version = "" } },
    { for name, arn in var.secret_settings : name => { arn = arn, version = "" } },
  )

  # Who may read which. Functions have no SQL in their package (docs/functions.md), and no gateway.
  secrets_of = {
    service   = [for name in keys(local.secrets) : name]
    scheduler = [for name in keys(local.secrets) : name if contains(concat(["REDIS_URL", "VESTIBULE_DATABASE_URL"], local.has_fleet ? ["VESTIBULE_WORKER_TOKEN"] : []), name)]
    admission = [for name in keys(local.secrets) : name if !contains(["VESTIBULE_DATABASE_URL", "VESTIBULE_OWUI_JWT_SECRET"], name)]
    ticks     = ["REDIS_URL"]
  }
}

resource "aws_secretsmanager_secret" "key" {
  for_each    = local.made_keys
  name_prefix = "${var.name}-${each.value}-" # a deleted name cannot be used again for a week
  description = each.key
}

ephemeral "aws_secretsmanager_random_password" "key" {
  for_each            = local.made_keys
  password_length     = 48
  exclude_punctuation = true # as it stands in headers and URLs
}

resource "aws_secretsmanager_secret_version" "key" {
  for_each                 = local.made_keys
  secret_id                = aws_secretsmanager_secret.key[each.key].id
  secret_string_wo         = ephemeral.aws_secretsmanager_random_password.key[each.key].random_password
  secret_string_wo_version = var.keys_version

  lifecycle {
    create_before_destroy = true # who starts meanwhile finds one
  }
}

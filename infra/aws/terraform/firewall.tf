# Who may speak to whom. A group begins with nothing; each rule below is one arrow. AWS' name servers
# need none: no group filters them (VPC User Guide, "Control traffic to resources using security groups").

locals {
  groups = {
    entrance  = "the load balancer"
    service   = "containers of service and scheduler"
    functions = "functions"
    workers   = "machines with GPUs"
  }

  # From a group, to a group, on a port.
  within = {
    entrance-service  = { from = "entrance", to = "service", port = local.service_port }
    service-workers   = { from = "service", to = "workers", port = local.worker_port }
    functions-workers = { from = "functions", to = "workers", port = local.worker_port } # ticks look at agents
    workers-entrance  = { from = "workers", to = "entrance", port = 443 }                # agents register and report
  }

  # Out of the VPC: AWS' own services, registries and hubs of models have no fixed addresses.
  to_https = toset(["service", "functions", "workers"])

  to_redis = toset(["service", "functions"])

  # What comes from private subnets to a public load balancer has the address of a NAT gateway.
  callers = toset(concat(var.caller_cidrs, [for nat in range(var.is_public ? local.nats : 0) : "nat-${nat}"]))
}

resource "aws_security_group" "this" {
  for_each    = local.groups
  name        = "${var.name}-${each.key}"
  description = "${var.name}: ${each.value}"
  vpc_id      = local.vpc_id
  tags        = { Name = "${var.name}-${each.key}" }
}

resource "aws_vpc_security_group_egress_rule" "within" {
  for_each                     = local.within
  description                  = each.key
  security_group_id            = aws_security_group.this[each.value.from].id
  referenced_security_group_id = aws_security_group.this[each.value.to].id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
}

resource "aws_vpc_security_group_ingress_rule" "within" {
  for_each                     = local.within
  description                  = each.key
  security_group_id            = aws_security_group.this[each.value.to].id
  referenced_security_group_id = aws_security_group.this[each.value.from].id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
}

resource "aws_vpc_security_group_ingress_rule" "callers" {
  for_each          = local.callers
  description       = "callers"
  security_group_id = aws_security_group.this["entrance"].id
  cidr_ipv4         = startswith(each.value, "nat-") ? "${aws_eip.nat[tonumber(trimprefix(each.value, "nat-"))].public_ip}/32" : each.value
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_ingress_rule" "redirected" {
  for_each          = toset(var.caller_cidrs)
  description       = "callers who forgot the s, sent on to https"
  security_group_id = aws_security_group.this["entrance"].id
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 80
  to_port           = 80
}

resource "aws_vpc_security_group_egress_rule" "https" {
  for_each          = local.to_https
  description       = "AWS, registries, hubs"
  security_group_id = aws_security_group.this[each.value].id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "database" {
  for_each          = toset(var.database_url_secret_arn == "" ? [] : local.private_cidrs)
  description       = "PostgreSQL of the accounting"
  security_group_id = aws_security_group.this["service"].id
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 5432
  to_port           = 5432
}

# --- Redis: ours by its group, yours by its addresses ----------------------------------------------

resource "aws_security_group" "redis" {
  count       = local.has_redis ? 0 : 1
  name        = "${var.name}-redis"
  description = "${var.name}: Redis"
  vpc_id      = local.vpc_id
  tags        = { Name = "${var.name}-redis" }
}

resource "aws_vpc_security_group_ingress_rule" "redis" {
  for_each                     = local.has_redis ? [] : local.to_redis
  description                  = "${each.value}-redis"
  security_group_id            = aws_security_group.redis[0].id
  referenced_security_group_id = aws_security_group.this[each.value].id
  ip_protocol                  = "tcp"
  from_port                    = var.redis_port
  to_port                      = var.redis_port
}

resource "aws_vpc_security_group_egress_rule" "redis" {
  for_each                     = local.has_redis ? [] : local.to_redis
  description                  = "${each.value}-redis"
  security_group_id            = aws_security_group.this[each.value].id
  referenced_security_group_id = aws_security_group.redis[0].id
  ip_protocol                  = "tcp"
  from_port                    = var.redis_port
  to_port                      = var.redis_port
}

resource "aws_vpc_security_group_egress_rule" "your_redis" {
  for_each          = { for pair in setproduct(local.to_redis, var.redis_cidrs) : join(" ", pair) => { from = pair[0], to = pair[1] } }
  description       = "your Redis"
  security_group_id = aws_security_group.this[each.value.from].id
  cidr_ipv4         = each.value.to
  ip_protocol       = "tcp"
  from_port         = var.redis_port
  to_port           = var.redis_port
}

# --- endpoints of the VPC --------------------------------------------------------------------------

resource "aws_security_group" "endpoints" {
  count       = local.has_vpc ? 0 : 1
  name        = "${var.name}-endpoints"
  description = "${var.name}: endpoints of AWS services"
  vpc_id      = local.vpc_id
  tags        = { Name = "${var.name}-endpoints" }
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  for_each                     = local.has_vpc ? [] : local.to_https
  description                  = "${each.value}-endpoints"
  security_group_id            = aws_security_group.endpoints[0].id
  referenced_security_group_id = aws_security_group.this[each.value].id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

# The load balancer. Its own access log stays off: it would write whole URLs, and with them ?token=.

resource "aws_lb" "main" {
  name                       = var.name
  load_balancer_type         = "application"
  internal                   = !var.is_public
  subnets                    = local.entrance_ids
  security_groups            = [aws_security_group.this["entrance"].id]
  idle_timeout               = local.idle_timeout # streams send a ping every 15 s; whole answers nothing until they are there
  drop_invalid_header_fields = true
  enable_deletion_protection = var.is_protected
}

resource "aws_lb_target_group" "service" {
  name                 = var.name
  vpc_id               = local.vpc_id
  target_type          = "ip"
  protocol             = "HTTP"
  port                 = local.service_port
  deregistration_delay = var.drain

  # The service keeps nothing (docs/redis.md), and a stream weighs more than a call.
  load_balancing_algorithm_type = "least_outstanding_requests"

  stickiness {
    type    = "lb_cookie"
    enabled = false
  }

  health_check {
    path                = "/readyz"
    matcher             = "200"
    interval            = 10
    timeout             = 6 # one more than Redis may take to answer
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.main.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.certificate_arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.service.arn
  }
}

resource "aws_lb_listener" "http" {
  load_balancer_arn = aws_lb.main.arn
  port              = 80
  protocol          = "HTTP"

  default_action {
    type = "redirect"
    redirect {
      port        = "443"
      protocol    = "HTTPS"
      status_code = "HTTP_301"
    }
  }
}

resource "aws_route53_record" "domain" {
  count   = var.zone_id == "" ? 0 : 1
  zone_id = var.zone_id
  name    = var.domain
  type    = "A"

  alias {
    name                   = aws_lb.main.dns_name
    zone_id                = aws_lb.main.zone_id
    evaluate_target_health = false
  }
}

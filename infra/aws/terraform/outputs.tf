output "url" {
  description = "Where people, Open WebUI, other frontends and workers call."
  value       = "https://${var.domain}"
}

output "load_balancer" {
  description = "Host name the domain must point at (CNAME or alias), unless zone_id was given."
  value       = aws_lb.main.dns_name
}

output "functions_url" {
  description = "The functions' own address: every operation without a stream."
  value       = aws_apigatewayv2_api.main.api_endpoint
}

output "package_hash" {
  description = "The functions' package that is deployed."
  value       = var.package_hash
}

output "runtime" {
  description = "Lambda's Python that it is for."
  value       = var.runtime
}

output "architecture" {
  description = "The processor that it and the image are for."
  value       = var.architecture
}

output "repository_url" {
  description = "Where the service's image is pushed to."
  value       = aws_ecr_repository.main.repository_url
}

output "secret_arns" {
  description = "Where the keys are: aws secretsmanager get-secret-value --secret-id ARN."
  value       = { for name, secret in aws_secretsmanager_secret.key : name => secret.arn }
}

output "alarm_topic_arn" {
  description = "The topic of the alarms; subscribe to it."
  value       = local.topic_arn
}

output "subnets" {
  description = "Where workers are launched, by zone."
  value       = local.subnets
}

output "fleet" {
  description = "What a fleet's file says of this deployment; its pools are yours to add (docs/aws.md)."
  value       = <<-END
    [deployment]
    name = "${var.name}"
    admission_url = "https://${var.domain}"

    [providers.aws]
    kind = "aws"
    region = "${var.region}"
    subnets = { ${join(", ", [for zone, id in local.subnets : "${zone} = \"${id}\""])} }
    types = { ${join(", ", [for kind in var.worker_instance_types : "\"${kind}\" = ${var.worker_slots}"])} }
    markets = ["spot", "on-demand"]
    launch_template = "${aws_launch_template.worker.id}"%{if var.model_archive != ""}
    model_archive = "${var.model_archive}"
    model_sha256 = "" # of the archive: sha256sum FILE%{endif}
  END
}

output "worker_launch_template_id" {
  description = "What workers are launched from."
  value       = aws_launch_template.worker.id
}

output "worker_launch_template_version" {
  description = "Its newest version."
  value       = aws_launch_template.worker.latest_version
}

output "worker_instance_types" {
  description = "Kinds of machines workers may be, in the order in which to try."
  value       = var.worker_instance_types
}

output "worker_security_group_id" {
  description = "What surrounds a worker: the gateways' way in, https out."
  value       = aws_security_group.this["workers"].id
}

variable "vpc_id" {
  description = "VPC you have; empty: one is made."
  type        = string
  default     = ""
}

variable "private_subnet_ids" {
  description = "With vpc_id: subnets with a way out (NAT) in at least two zones, for functions, containers, Redis and workers."
  type        = list(string)
  default     = []
  validation {
    condition     = var.vpc_id == "" ? length(var.private_subnet_ids) == 0 : length(var.private_subnet_ids) >= 2
    error_message = "private_subnet_ids: at least two with vpc_id, none without."
  }
}

variable "public_subnet_ids" {
  description = "With vpc_id: subnets in the same zones for the load balancer; those of private_subnet_ids when it is not public."
  type        = list(string)
  default     = []
  validation {
    condition     = var.vpc_id == "" ? length(var.public_subnet_ids) == 0 : length(var.public_subnet_ids) >= 2
    error_message = "public_subnet_ids: at least two with vpc_id, none without."
  }
}

variable "cidr" {
  description = "Addresses of the VPC made here, a /20 or larger network."
  type        = string
  default     = "10.42.0.0/16"
  validation {
    condition     = can(cidrhost(var.cidr, 0)) && try(tonumber(split("/", var.cidr)[1]) <= 20, false)
    error_message = "cidr: a network such as 10.42.0.0/16, /20 or larger."
  }
}

variable "zones" {
  description = "Availability zones of the VPC made here."
  type        = number
  default     = 2
  validation {
    condition     = var.zones >= 2 && var.zones <= 4
    error_message = "zones: 2 to 4."
  }
}

variable "nat_per_zone" {
  description = "A NAT gateway in each zone: one zone that fails takes no other's way out. Else one for all."
  type        = bool
  default     = false
}

variable "interface_endpoints" {
  description = "Services reached through endpoints of the VPC instead of NAT, such as secretsmanager, logs, ecr.api, ecr.dkr. Each costs by the hour and zone."
  type        = set(string)
  default     = ["secretsmanager"] # a new container or function needs it to start
}

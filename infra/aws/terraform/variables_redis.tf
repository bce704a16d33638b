variable "redis_url_secret_arn" {
  description = "Secret with REDIS_URL (rediss://…) of a Redis you have; empty: ElastiCache is made. With it the alarms on Redis are yours."
  type        = string
  default     = ""
}

variable "redis_cidrs" {
  description = "With redis_url_secret_arn: networks where that Redis is."
  type        = list(string)
  default     = []
  validation {
    condition     = (var.redis_url_secret_arn == "") == (length(var.redis_cidrs) == 0)
    error_message = "redis_cidrs: given with redis_url_secret_arn, and only then."
  }
}

variable "redis_port" {
  description = "Port of Redis."
  type        = number
  default     = 6379
}

variable "redis_engine_version" {
  description = "Version of Valkey."
  type        = string
  default     = "8.0"
}

variable "redis_parameter_family" {
  description = "Family of Valkey's parameters, which goes with the version."
  type        = string
  default     = "valkey8"
}

variable "redis_node_type" {
  description = "Kind of Redis' machines. One core counts: the engine is one thread (docs/redis.md)."
  type        = string
  default     = "cache.m7g.large"
}

variable "redis_replicas" {
  description = "Replicas in other zones, one of which takes over."
  type        = number
  default     = 1
  validation {
    condition     = var.redis_replicas >= 1 && var.redis_replicas <= 5
    error_message = "redis_replicas: 1 to 5; with none there is no failover."
  }
}

variable "redis_snapshot_days" {
  description = "Days the daily snapshots are kept."
  type        = number
  default     = 7
}

variable "redis_token_version" {
  description = "A higher number gives Redis a new password at the next deploy; then renew tasks and functions (docs/aws.md)."
  type        = number
  default     = 1
}

variable "redis_token_strategy" {
  description = "How a new password replaces the old one: ROTATE keeps both, SET then forgets the old one."
  type        = string
  default     = "ROTATE"
  validation {
    condition     = contains(["ROTATE", "SET"], var.redis_token_strategy)
    error_message = "redis_token_strategy: ROTATE or SET."
  }
}

variable "worker_ami" {
  description = "Image of a worker's disk with NVIDIA's driver, Docker and AWS' command line, or where SSM names it."
  type        = string
  default     = "resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-amazon-linux-2023/latest/ami-id"
}

variable "worker_instance_types" {
  description = "Kinds of machines with GPUs, the first is the launch template's."
  type        = list(string)
  default     = ["g6e.xlarge", "g6.xlarge"]
  validation {
    condition     = length(var.worker_instance_types) >= 1
    error_message = "worker_instance_types: at least one."
  }
}

variable "worker_disk" {
  description = "GiB of a worker's disk: the image, about 15, and the model's weights."
  type        = number
  default     = 200
}

variable "worker_image" {
  description = "The worker's image (docs/worker.md), in a registry that workers reach."
  type        = string
  default     = "vestibule-worker:nvidia"
}

variable "worker_model" {
  description = "What workers serve: a hub's name, or model_bucket's folder as /models/…"
  type        = string
  default     = "Qwen/Qwen3-8B"
}

variable "worker_slots" {
  description = "Requests a worker takes well (max-num-seqs of its flavor)."
  type        = number
  default     = 8
}

variable "worker_vllm_arguments" {
  description = "Words for vllm serve, as `vestibule image FLAVOR --vllm` prints them."
  type        = string
  default     = "--max-num-seqs 8 --max-num-queued-reqs 16"
}

variable "worker_agent_sha256" {
  description = "The only agent file that is routed to (make agent-checksum); empty: any."
  type        = string
  default     = ""
}

variable "model_bucket" {
  description = "Bucket with models that workers copy before they start; empty: none, workers ask the hub."
  type        = string
  default     = ""
}

variable "model_prefix" {
  description = "Folder in model_bucket; workers may read this and nothing else."
  type        = string
  default     = "models"
}

variable "model_archive" {
  description = "Instead of model_bucket: s3://BUCKET/KEY.tar, which workers fetch by a URL that the scheduler signs for each (docs/providers.md). Needs a fleet."
  type        = string
  default     = ""
  validation {
    condition     = var.model_archive == "" || (can(regex("^s3://[a-z0-9.-]+/.+\\.(tar|tar\\.gz|tgz)$", var.model_archive)) && var.model_bucket == "")
    error_message = "model_archive: s3://BUCKET/KEY, a tar (.tar, .tar.gz, .tgz), and no model_bucket."
  }
}

variable "fleet_file" {
  description = "The fleet's file (docs/fleet.md), which the scheduler runs with; `vestibule aws deploy --fleet` gives it. It holds no secret. Empty: workers are launched by hand."
  type        = string
  default     = ""
  validation {
    condition     = var.fleet_file == "" || (try(length(file(var.fleet_file)) <= 32768, false) && var.database_url_secret_arn != "")
    error_message = "fleet_file: a file of at most 32 KiB, and database_url_secret_arn, as a fleet needs the scheduler."
  }
}

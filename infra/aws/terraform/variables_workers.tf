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

# What an operator decides. Those of the network, Redis and the workers stand beside their resources'
# files, in variables_*.tf. No secret is a variable: secrets are named by their ARN.

variable "name" {
  description = "Name of the deployment; every resource's name begins with it."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "name: 3 to 24 of a-z 0-9 -, beginning with a letter, ending in none of -."
  }
}

variable "region" {
  description = "Region of AWS, such as eu-central-1."
  type        = string
}

variable "tags" {
  description = "Tags of every resource, beside deployment and managed-by."
  type        = map(string)
  default     = {}
}

variable "domain" {
  description = "Host name people and workers call, which the certificate covers: chat.example.org."
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9-]+(\\.[a-z0-9-]+)+$", var.domain))
    error_message = "domain: a host name such as chat.example.org, without https:// and path."
  }
}

variable "certificate_arn" {
  description = "Certificate of ACM for the domain, in this region. There is no service without TLS: keys travel in headers."
  type        = string
  validation {
    condition     = can(regex("^arn:aws[a-z-]*:acm:[a-z0-9-]+:[0-9]{12}:certificate/.+$", var.certificate_arn))
    error_message = "certificate_arn: the ARN of a certificate in ACM."
  }
}

variable "zone_id" {
  description = "Hosted zone of Route 53 in which the domain is pointed at the load balancer; empty: you do that."
  type        = string
  default     = ""
}

variable "settings" {
  description = "More settings of Vestibule (README) for service, scheduler and functions, such as MAX_ACTIVE_USERS. No secrets: they would be readable in task definitions."
  type        = map(string)
  default     = {}
  validation {
    condition = alltrue([
      for name in keys(var.settings) :
      (name == "VESTIBULE_RATE_KEY" || !can(regex("_(KEY|TOKEN|SECRET|URL)$", name))) && !contains(["REDIS_HOST", "VESTIBULE_AUTH", "VESTIBULE_FLEET", "VESTIBULE_HOST", "VESTIBULE_PORT"], name)
    ])
    error_message = "settings: secrets, addresses of databases, VESTIBULE_AUTH, VESTIBULE_FLEET, VESTIBULE_HOST and VESTIBULE_PORT are not given here."
  }
}

variable "secret_settings" {
  description = "VESTIBULE_OWUI_JWT_SECRET and VESTIBULE_SIGNING_KEY, where you set them: the name and the ARN of the secret that holds it."
  type        = map(string)
  default     = {}
  validation {
    condition     = length(setsubtract(keys(var.secret_settings), ["VESTIBULE_OWUI_JWT_SECRET", "VESTIBULE_SIGNING_KEY"])) == 0
    error_message = "secret_settings: VESTIBULE_OWUI_JWT_SECRET and VESTIBULE_SIGNING_KEY alone; databases have variables of their own, all other keys are made here."
  }
}

variable "keys_version" {
  description = "A higher number makes new service, admin and worker keys at the next deploy; callers then need the new ones."
  type        = number
  default     = 1
}

variable "database_url_secret_arn" {
  description = "Secret with VESTIBULE_DATABASE_URL (postgresql://…) of a PostgreSQL you have. Empty: no scheduler container, ticks come from the schedule alone and what was used waits in Redis."
  type        = string
  default     = ""
}

# --- functions and API ---------------------------------------------------------------------------

variable "package" {
  description = "File of the functions' zip (vestibule aws package)."
  type        = string
}

variable "package_hash" {
  description = "The zip's SHA-256 in base64, as Lambda tells it: another one is another version."
  type        = string
}

variable "runtime" {
  description = "Lambda's Python that the package is for."
  type        = string
  default     = "python3.13"
}

variable "architecture" {
  description = "Processor that the package and the service's image are for."
  type        = string
  default     = "x86_64"
  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "architecture: x86_64 or arm64."
  }
}

variable "function_memory" {
  description = "MB of a function; its share of a processor grows with them (docs/functions.md)."
  type        = number
  default     = 512
}

variable "function_concurrency" {
  description = "Invocations of the admission function at once. Each is a connection to Redis; more callers get 429 from Lambda."
  type        = number
  default     = 50
  validation {
    condition     = var.function_concurrency >= 1 && var.function_concurrency <= 5000
    error_message = "function_concurrency: 1 to 5000."
  }
}

variable "api_rate" {
  description = "Calls a second the API takes on average; more are 429."
  type        = number
  default     = 200
}

variable "api_burst" {
  description = "Calls the API takes at once."
  type        = number
  default     = 400
}

# --- service -------------------------------------------------------------------------------------

variable "image" {
  description = "The service's image, by tag or digest (infra/aws/Dockerfile). Empty: image_tag in the repository made here."
  type        = string
  default     = ""
}

variable "image_tag" {
  description = "Tag in the repository made here; tags there cannot be moved."
  type        = string
  default     = "0.1.0"
}

variable "tasks_min" {
  description = "Containers of the service at least. 0 at the very first deploy, until an image is pushed."
  type        = number
  default     = 2
}

variable "tasks_max" {
  description = "Containers of the service at most."
  type        = number
  default     = 10
  validation {
    condition     = var.tasks_max >= var.tasks_min
    error_message = "tasks_max: at least tasks_min."
  }
}

variable "task_cpu" {
  description = "CPU units of a container, 1024 are one: 1024, 2048 or 4096. A process runs on each."
  type        = number
  default     = 1024
  validation {
    condition     = contains([1024, 2048, 4096], var.task_cpu)
    error_message = "task_cpu: 1024, 2048 or 4096."
  }
}

variable "task_memory" {
  description = "MB of a container."
  type        = number
  default     = 2048
}

variable "is_public" {
  description = "Whether the load balancer has public addresses; else it is reached from the VPC and what is peered with it. The functions' API is public in any case."
  type        = bool
  default     = true
}

variable "caller_cidrs" {
  description = "Networks that may call the load balancer; with vpc_id your NAT's addresses too, as workers call it. The functions' API takes calls from everywhere."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

variable "silence_timeout" {
  description = "Seconds a worker may say nothing (VESTIBULE_SILENCE_TIMEOUT). The load balancer waits a minute longer, a connection to the service lives two."
  type        = number
  default     = 600
  validation {
    condition     = var.silence_timeout >= 60 && var.silence_timeout <= 3900
    error_message = "silence_timeout: 60 to 3900; a load balancer waits for 4000 s at most."
  }
}

variable "drain" {
  description = "Seconds running answers have when a container is replaced, before it is told to stop. At least 120: an answer may go on for that long when its turn is over."
  type        = number
  default     = 300
  validation {
    condition     = var.drain >= 120 && var.drain <= 3600
    error_message = "drain: 120 to 3600."
  }
}

variable "is_protected" {
  description = "Whether load balancer and images refuse to be deleted, and Redis leaves a last snapshot; false before a destroy."
  type        = bool
  default     = true
}

# --- alarms and logs -----------------------------------------------------------------------------

variable "log_days" {
  description = "Days logs are kept."
  type        = number
  default     = 30
}

variable "alarm_topic_arn" {
  description = "SNS topic that hears the alarms; empty: one is made, which nobody hears until you subscribe."
  type        = string
  default     = ""
}

variable "wait_alarm" {
  description = "Seconds whoever is first in a queue may have waited before it is an alarm."
  type        = number
  default     = 1800
}

variable "hosts" {
  description = "Hosts to admit; `flintctl dev up` starts agents with these names."
  type        = list(string)
  default     = ["h1", "h2", "h3"]
}

variable "microvms" {
  description = "MicroVMs by the last part of their name. An interface needs a host that may make tap devices."
  type = map(object({
    drift_policy = optional(string, "repair")
    memory_in_mb = optional(number, 128)
    interface    = optional(bool, false)
  }))
  default = {
    a = {}
    b = { drift_policy = "report" }
    c = {}
    d = {}
    e = {}
    f = {}
  }
}

variable "kernel_image" {
  description = "Image of the kernel; `flintctl image list` shows what a host has."
  type        = string
  default     = "demo/kernel"
}

variable "initrd_image" {
  type    = string
  default = "demo/initrd:1"
}

variable "root_image" {
  type    = string
  default = "demo/root:1"
}

# What the pipelines keep: microVMs of one namespace. The namespace and the pipelines' roles are in ../access.

terraform {
  required_version = ">= 1.8"
  required_providers {
    flintlock = {
      source = "microscaler/flintlock"
    }
  }

  # Yours goes here: a backend that every job of the pipeline reaches, and that locks. Its arguments come from the file
  # that BACKEND_CONFIG names, so that no path and no secret is written here.
  backend "local" {}
}

# Endpoints, token and CA come from FLINTLOCK_ENDPOINTS, FLINTLOCK_TOKEN and FLINTLOCK_CA_FILE. Detection and repair have
# different tokens.
provider "flintlock" {}

variable "microvms" {
  description = "Names of the microVMs."
  type        = set(string)
  default     = ["a", "b"]
}

resource "flintlock_microvm" "web" {
  for_each     = var.microvms
  name         = "web-${each.key}"
  namespace    = "web"
  labels       = { app = "web", team = "web" }
  vcpu         = 1
  memory_in_mb = 128
  kernel       = { image = "demo/kernel" }
  initrd       = { image = "demo/initrd:1" }
  wait_for     = "ready"

  # Drift waits for an approval. With `repair`, the default, it heals by itself, and pipelines only ever see what does
  # not.
  drift_policy = "report"
}

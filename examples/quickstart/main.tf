# The quickstart: a namespace, three hosts and six microVMs, spread evenly.
#
#   flintctl dev up
#   eval "$(flintctl dev env)"
#   terraform init && terraform apply

terraform {
  required_version = ">= 1.8"
  required_providers {
    flintlock = {
      source = "microscaler/flintlock"
    }
  }
}

# Endpoints, token and CA come from FLINTLOCK_ENDPOINTS, FLINTLOCK_TOKEN and FLINTLOCK_CA_FILE.
provider "flintlock" {}

# A host gets work once it is declared; its agent runs already and waits.
resource "flintlock_host" "this" {
  for_each = toset(var.hosts)
  name     = each.key
}

resource "flintlock_namespace" "demo" {
  name         = "demo"
  max_microvms = 20
}

# At most as many per host as an even spread needs.
resource "flintlock_placement_policy" "even" {
  name = "even"
  spread = {
    by           = "host"
    max_per      = ceil(length(var.microvms) / length(var.hosts))
    match_labels = { app = "web" }
  }
}

resource "flintlock_microvm" "web" {
  for_each     = var.microvms
  name         = "web-${each.key}"
  namespace    = flintlock_namespace.demo.name
  labels       = { app = "web" }
  vcpu         = 1
  memory_in_mb = each.value.memory_in_mb
  kernel       = { image = var.kernel_image }
  initrd       = { image = var.initrd_image }
  root_volume  = { container_source = var.root_image }
  interfaces   = each.value.interface ? { eth1 = { type = "tap" } } : null
  metadata     = { "user-data" = "#cloud-config\n# web-${each.key} of the quickstart\n" }
  drift_policy = each.value.drift_policy
  placement    = { policy = flintlock_placement_policy.even.name }
  wait_for     = "ready"

  timeouts {
    create = "5m"
    update = "5m"
    delete = "3m"
  }

  # A microVM is placed on declared hosts only.
  depends_on = [flintlock_host.this]
}

output "microvms" {
  description = "Uid of every microVM. Where each one runs is observation: `flintctl vm list`."
  value       = { for key, microvm in flintlock_microvm.web : microvm.name => microvm.uid }
}
